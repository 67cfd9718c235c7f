// The dashboard's own tables against their sources: the C state matrix, openapi.yaml, and every text in German.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { offers, OFFERED_PATHS } from "../src/api/offers";
import type { Session } from "../src/api/types";
import { de } from "../src/i18n/de";
import { labels } from "../src/i18n/de/labels";
import { sentences } from "../src/i18n/de/sentences";
import { words as inLine } from "../src/i18n/de/words";
import { undoes } from "../src/model/cancel";
import { covered, OPERATIONS, type Operation } from "../src/model/can";
import { PARTS } from "../src/screens/about";
import { PHASES } from "../src/screens/jobs";
import { STATES, VERBS, whyNot, type Verb, type VerbName } from "../src/model/verbs";

const root = process.env.QUIESCED_SOURCE ?? join(import.meta.dirname, "../..");
const matrix = readFileSync(join(root, "daemon/model/session_model.c"), "utf8");
const contract = readFileSync(join(root, "openapi.yaml"), "utf8");

function row(name: string): { backup: string; restore: string; hint: string } {
  const found = new RegExp(`\\{"${name}", "([^"]*)", "([^"]*)", (?:true|false), (?:true|false),\\s*"([^"]*)"`).exec(matrix);
  if (!found) throw new Error(`session_model.c has no row ${name}`);
  return { backup: found[1]!, restore: found[2]!, hint: found[3]! };
}

describe("the verbs", () => {
  it.each(Object.values(VERBS).map((verb: Verb) => [verb.name, verb] as const))("%s is as the daemon rules it", (name, verb) => {
    expect({ backup: verb.backup, restore: verb.restore, hint: verb.belongs }).toEqual(row(name));
  });
  it("has the daemon's states in its order", () => {
    const names = [...matrix.slice(matrix.indexOf("state_names["), matrix.indexOf("};")).matchAll(/"(\w+)"/g)].map((found) => found[1]);
    expect(STATES).toEqual(names);
  });
  const facts = (state: string, more: object = {}) => ({ session: { kind: "backup", context: "backup", state, pending_job: null, backup_state: {}, ...more } as unknown as Session, gathered: state !== "initialized", snapshotNeeded: true });
  it("leads a backup through its life", () => {
    const life: [string, VerbName][] = [["initialized", "metadata"], ["identified", "startSet"], ["set_open", "prepare"], ["prepared", "snapshot"], ["snapshotted", "copy"], ["snapshotted", "complete"]];
    for (const [state, verb] of life) expect(whyNot(verb, facts(state)), `${verb} in ${state}`).toBeNull();
    expect(whyNot("complete", facts("snapshot_failed"))).not.toBeNull();
    expect(whyNot("complete", facts("prepared"))).not.toBeNull();
  });
  it("offers nothing but abort while a job is pending", () => {
    const busy = facts("prepared", { pending_job: "x" });
    for (const verb of Object.keys(VERBS) as VerbName[]) expect(whyNot(verb, busy) === null, verb).toBe(verb === "abort");
  });
  it("knows contexts without writers", () => {
    expect(whyNot("startSet", { ...facts("initialized", { context: "nas_rollback" }), gathered: false })).toBeNull();
    expect(whyNot("prepare", facts("set_open", { context: "nas_rollback" }))).not.toBeNull();
  });
});

describe("the licences", () => {
  it("name what docs/dependencies.md says is in the product", () => {
    const page = readFileSync(join(root, "docs/dependencies.md"), "utf8");
    const table = page.slice(page.indexOf("## In the product"), page.indexOf("| program,"));
    const named = [...table.matchAll(/^\| (?!library|---)([^|]+) \|/gm)].flatMap((found) => found[1]!.split(", ")).map((name) => name.replace(/ [\d.]+$/, ""));
    expect(PARTS.map(([name]) => name)).toEqual(named);
  });
});

describe("the phases of a job", () => {
  const source = (path: string): string => readFileSync(join(root, path), "utf8");
  const told = (path: string): string[] => [...source(path).matchAll(/worker_phase\(\w+, "(\w+)"\)/g)].map((found) => found[1]!);
  it("of a backup are the engine's", () => {
    const found = [...source("daemon/engine/backup/backup.c").matchAll(/^ {4}\{"(\w+)", (?:NULL|&job_kind_\w+), (?:NULL|\w+_enter)\},/gm)].map((one) => one[1]);
    expect(PHASES.Backup).toEqual(found);
  });
  it("of a snapshot set are its worker's", () => expect(PHASES.DoSnapshotSet).toEqual(told("daemon/worker/phase_snapshot.c")));
  it("of a restore are its verb's and its mover's", () => {
    expect(source("daemon/worker/catalog.c")).toContain("worker_phase(worker, verb);");
    expect(source("daemon/movers/mover_child.c")).toContain('"phase", "publish"');
    expect(PHASES.Restore).toEqual(["restore", "publish"]);
  });
});

describe("what is offered to whom", () => {
  const said = new Map<string, string>();
  let path = "";
  let verb = "";
  let name = "";
  for (const line of contract.slice(0, contract.indexOf("\ncomponents:")).split("\n")) {
    path = /^ {2}(\/\S*):$/.exec(line)?.[1] ?? path;
    verb = /^ {4}(get|post|put|patch|delete):$/.exec(line)?.[1] ?? verb;
    name = /^ {6}operationId: (\w+)$/.exec(line)?.[1] ?? name;
    const role = /^ {6}x-role: \[?([\w, ]+)\]?$/.exec(line)?.[1];
    if (role) said.set(name, [`${verb.toUpperCase()} ${path}`, ...role.split(/, */)].join("|"));
  }
  it.each(Object.entries(OPERATIONS))("%s is as the contract says", (operation, rule) => expect(rule.join("|")).toBe(said.get(operation)));
  const names: Operation[] = ["backupList", "backupCreate", "backupFiles", "jobList", "jobCancel"];
  const left = (...scopes: string[]): string => names.filter((one) => covered(scopes, one)).join(" ");
  it("is all without a scope", () => expect(left()).toBe(names.join(" ")));
  it("is what a scope covers", () => {
    expect(left("read")).toBe("backupList backupFiles jobList");
    expect(left("read:/jobs")).toBe("jobList");
    expect(left("/backups/")).toBe("backupList backupCreate backupFiles");
    expect(left("/back")).toBe("");
    expect(left("/")).toBe(names.join(" "));
    expect(left("backupCreate", "read:/backups")).toBe("backupList backupCreate backupFiles");
  });
});

describe("openapi.yaml", () => {
  it.each(Object.entries(OFFERED_PATHS))("offers %s just when the dashboard says so", (name, path) => {
    expect(offers[name as keyof typeof offers] && !contract.includes(`\n  ${path}:`), `${path} is not there`).toBe(false);
  });
});

/** Operations that the dashboard leaves out, and why. Everything else an administrator reaches from some screen. */
const LEFT_OUT: Record<string, string> = {
  sessionImport: "always 501: VSS calls without a counterpart here",
  sessionRecoverySet: "always 501",
  sessionRecover: "always 501",
  sessionPreFastRecovery: "always 501",
  sessionFastRecovery: "always 501",
  snapshotSetBreak: "always 501",
  jobEventStream: "one stream of all events serves every screen",
  componentGet: "read with its list", tokenGet: "read with its list", enrolmentGet: "read with its list", certificateGet: "read with its list", deliveryGet: "read with its list",
  holdList: "each session tells of its own hold, and is asked for it",
  snapshotSetGet: "its snapshots are read by session",
  snapshotRevertStatus: "the revert's job has a page, and the list of jobs a filter",
  whoami: "GET /login says the same of a browser",
  auditKey: "for `quiesced audit-verify`, which no browser runs; it is fetched once and kept (docs/audit.md)",
};
/** Linked, streamed or downloaded rather than called. */
const LINKED = /(?:href|path|action|download)=?[="{`(]+[^"`]*(\/(?:metrics|openapi\.yaml|openapi\.json|docs\/|ca\.pem|health\/ready))/g;

describe("every operation of openapi.yaml that needs a role", () => {
  const text = sources(join(import.meta.dirname, "../src")).map((path) => readFileSync(path, "utf8")).join("\n");
  const reached = new Set<string>();
  for (const found of text.matchAll(/\bget\("(\/[^"]*)"/g)) reached.add(`get ${found[1]}`);
  for (const found of text.matchAll(/\b(?:call|plain)\("(get|post|put|patch|delete)", "(\/[^"]*)"/g)) reached.add(`${found[1]} ${found[2]}`);
  for (const found of text.matchAll(/\bpost\("([a-z/-]+)"\)/g)) reached.add(`post /sessions/{session_id}/${found[1]}`);
  for (const found of text.matchAll(LINKED)) reached.add(`get ${found[1]}`);
  if (text.includes("/snapshots/${snapshot.id}/archive")) reached.add("get /snapshots/{snapshot_id}/archive");
  if (text.includes('new EventSource(last ? `/events')) reached.add("get /events");
  const operations: [string, string][] = [];
  let path = "";
  let verb = "";
  let name = "";
  for (const line of contract.slice(0, contract.indexOf("\ncomponents:")).split("\n")) {
    path = /^ {2}(\/\S*):$/.exec(line)?.[1] ?? path;
    verb = /^ {4}(get|post|put|patch|delete):$/.exec(line)?.[1] ?? verb;
    name = /^ {6}operationId: (\w+)$/.exec(line)?.[1] ?? name;
    if (/^ {6}x-role:/.test(line)) operations.push([name, `${verb} ${path}`]);
  }
  it("is found in the contract", () => expect(operations.length).toBeGreaterThan(80));
  it("is reached from some screen, or left out for a reason", () => expect(operations.filter(([name, call]) => !reached.has(call) && !(name in LEFT_OUT))).toEqual([]));
  it("is not called left out when it is reached", () => expect(operations.filter(([name, call]) => reached.has(call) && name in LEFT_OUT)).toEqual([]));
  it("is one of the contract when it is left out", () => expect(Object.keys(LEFT_OUT).filter((name) => !operations.some(([known]) => known === name))).toEqual([]));
});

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.tsx?$/.test(path) && !/i18n\/de\/|contract\.d\.ts$/.test(path) ? [path] : [];
  });
}

const phase = (word: string): string => word.replace(/_/g, " ");

describe("German", () => {
  const texts = new Set<string>();
  for (const path of sources(join(import.meta.dirname, "../src"))) {
    const text = readFileSync(path, "utf8");
    for (const found of text.matchAll(/\bt\(\s*"((?:[^"\\]|\\.)*)"/g)) texts.add(JSON.parse(`"${found[1]}"`) as string);
    for (const found of text.matchAll(/\btn\([^"]*?"((?:[^"\\]|\\.)*)",\s*"((?:[^"\\]|\\.)*)"/g)) texts.add(found[1]!).add(found[2]!);
  }
  for (const name of ["verbs", "forms", "component", "access", "webhooks"]) {
    const text = readFileSync(join(import.meta.dirname, `../src/screens/${name}.tsx`), "utf8");
    for (const found of text.matchAll(/\btitle: "([^"]+)"/g)) texts.add(found[1]!);
    for (const found of text.matchAll(/\[(?:"\w*"|\d[\d *]*), "([^"]*[ A-Z][^"]*)"\]/g)) texts.add(found[1]!);
  }
  for (const verb of Object.values(VERBS) as Verb[]) if (verb.belongs) texts.add(verb.belongs);
  for (const operation of ["Backup", "GatherWriterMetadata", "BackupComplete", "Copy", "Restore", "PreRestore", "PostRestore", "Verify", "Scan", "?"]) {
    for (const line of undoes({ operation } as never)) texts.add(line);
  }
  /** Words of the API that are shown as words: phases of jobs and of workers, contexts and their attributes, why a session was aborted. */
  const words = new Set<string>();
  const folders = ["daemon/worker", "daemon/engine/backup", "daemon/engine/job", "daemon/engine/session"].map((one) => join(root, one)).filter((one) => existsSync(one));
  const c = folders.flatMap((one) => readdirSync(one).filter((name) => name.endsWith(".c")).map((name) => readFileSync(join(one, name), "utf8"))).join("\n");
  for (const found of c.matchAll(/worker_phase\(\w+, "(\w+)"\)|^ {4}\{"(\w+)", (?:NULL|&job_kind_\w+), (?:NULL|\w+_enter)\},|\.phase = "(\w+)"|->phase = "(\w+)"|"reason", json_string\("(\w+)"\)/gm)) words.add(found.slice(1).find(Boolean)!);
  for (const name of ["Context", "ContextAttribute"]) {
    const listed = new RegExp(`^    ${name}:\\n(?:      .*\\n)*?      enum: \\[([^\\]]+)\\]`, "m").exec(contract);
    for (const one of listed?.[1]?.split(",") ?? []) words.add(one.trim());
  }
  it("knows the words of the API", () => expect([...words].length).toBeGreaterThan(30));
  it("has each of them", () => expect([...words].filter((word) => !(phase(word) in de))).toEqual([]));
  it("has each in one table only", () => expect([labels, sentences, inLine].reduce((sum, one) => sum + Object.keys(one).length, 0)).toBe(Object.keys(de).length));
  it("has every text", () => expect([...texts].filter((text) => !(text in de))).toEqual([]));
  it("keeps every placeholder", () => {
    const names = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]!).sort();
    expect(Object.entries(de).filter(([english, german]) => names(english).join() !== names(german).join())).toEqual([]);
  });
});
