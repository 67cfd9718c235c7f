import { describe, expect, it } from "vitest";
import { fill } from "../src/api/client";
import { eventsOf, linesOf } from "../src/screens/log";
import { livePhase, phaseNow, phaseOf, takesPart } from "../src/screens/sessions";
import { callsOf } from "../src/screens/audit";
import { ceiling } from "../src/screens/overview";
import { speedOf } from "../src/screens/jobs";
import { bodyOf, chosenOf } from "../src/screens/new";
import { merge } from "../src/state/list";
import { clock, now, told } from "../src/state/clock";
import { topicsOf } from "../src/state/live";
import { href, parse } from "../src/state/route";
import { bytes, coarse, relative, span } from "../src/ui/format";
import { heldOf } from "../src/ui/frozen";
import { lanesOf, place } from "../src/ui/timeline";
import { beginOf, choiceOf, outermost, pathOf } from "../src/model/picking";
import { storedOf } from "../src/screens/component";
import { nextOf } from "../src/screens/verbs";
import { stepOf } from "../src/ui/walk";
import type { Session } from "../src/api/types";

describe("addresses", () => {
  it("come back as they went", () => {
    const query = { state: "running", label: "a & b/ü#?" };
    const to = href(["jobs", "x y/z"], query);
    expect(parse(to)).toEqual({ path: ["jobs", "x y/z"], query });
  });
  it("leave empty filters out", () => expect(href(["jobs"], { state: "", label: null })).toBe("#/jobs"));
  it("survive nonsense", () => expect(parse("#/%E0%A4%A/x").path).toEqual(["%E0%A4%A", "x"]));
  it("fill a path of the contract and quote what goes in", () =>
    expect(fill("/jobs/{job_id}/release", { job_id: "../x" }, { wait: 5, none: undefined })).toBe("/jobs/..%2Fx/release?wait=5"));
});

describe("numbers for people", () => {
  it("bytes", () => expect([0, 999, 1000, 7163344, 1e12, -1, null].map((one) => bytes(one))).toEqual(["0 B", "999 B", "1.0 kB", "7.2 MB", "1.0 TB", "–", "–"]));
  it("spans", () => expect([0.42, 562.3, 3242, 61_000, 3_900_000].map(span)).toEqual(["0.4 ms", "562 ms", "3.2 s", "1 min 1 s", "1 h 5 min"]));
  it("coarse", () => expect([400, 59_000, 60_000, 90_000_000].map(coarse)).toEqual(["0 s", "59 s", "1 min", "1 d 1 h"]));
  it("ages", () => expect([relative(0, 7_200_000), relative(600_000, 0), relative(1000, 2000)]).toEqual(["2 h ago", "in 10 min", "just now"]));
  it("a round end of the axis", () => expect([1, 3, 562, 1000, 1001].map(ceiling)).toEqual([1, 5, 1000, 1000, 2000]));
});

describe("the clock", () => {
  const header = (ahead: number) => new Date(Date.now() + ahead).toUTCString();
  it("is the daemon's, where this browser's is wrong", () => {
    told(header(600_000));
    expect(Math.abs(clock() - Date.now() - 600_000)).toBeLessThan(2000);
    expect(Math.abs(now.value - clock())).toBeLessThan(2000);
  });
  it("is this browser's where both agree, and where nothing is told", () => {
    told(header(0));
    for (const word of [null, "yesterday"]) told(word);
    expect(clock() - Date.now()).toBe(0);
  });
});

describe("a list", () => {
  const items = (...ids: string[]): { id: string; n?: number }[] => ids.map((id) => ({ id }));
  it("puts new items in front and keeps later pages", () => expect(merge(items("9", "8", "7"), items("8", "7", "6", "5"), false).map((one) => one.id)).toEqual(["9", "8", "7", "6", "5"]));
  it("drops what has gone from within the first page", () => expect(merge(items("9", "7"), items("9", "8", "7", "6"), false).map((one) => one.id)).toEqual(["9", "7", "6"]));
  it("goes on where the first page's last item is new", () => expect(merge(items("9", "8"), items("5", "4"), false).map((one) => one.id)).toEqual(["9", "8", "5", "4"]));
  it("is the first page when there is no more", () => expect(merge(items("2"), items("2", "1"), true).map((one) => one.id)).toEqual(["2"]));
});

describe("events", () => {
  it("make the views of their job and session old", () =>
    expect(topicsOf({ type: "job.changed", job_id: "j", session_id: "s", data: null })).toEqual(["jobs", "job:j", "sessions", "session:s"])); // the list of sessions shows pending_job
  it("of progress concern one job only", () => expect(topicsOf({ type: "job.progress", job_id: "j", session_id: "s", data: null })).toEqual(["job:j"]));
});

describe("what is frozen", () => {
  const hold = { since: "2026-11-26T10:00:00.000Z", deadline: "2026-11-26T10:01:00.000Z" };
  it("comes from sessions and from the stream, once", () => {
    const session = { id: "s", hold } as Session;
    const told = new Map([["s", { ...hold, file_systems: ["/srv"], writers: [] }], ["t", { ...hold, file_systems: [], writers: ["app"] }]]);
    expect(heldOf([session, { id: "u", hold: null } as Session], told).map((one) => [one.id, one.what])).toEqual([["s", ["/srv"]], ["t", ["app"]]]);
  });
});

describe("the audit trail", () => {
  const record = (seq: number, kind: string, call: string, more: object = {}) => ({ seq, id: String(seq), kind, call, object: null, ...more }) as never;
  it("is one line for each call, with its outcome and what was asked", () => {
    const calls = callsOf([record(4, "intent", "b", { asked: { x: 1 } }), record(3, "outcome", "a", { succeeded: true }), record(2, "intent", "a", { asked: { y: 2 } })]);
    expect(calls.map((call) => [call.last.call, call.outcome, call.asked])).toEqual([["b", false, { x: 1 }], ["a", true, { y: 2 }]]);
  });
});

describe("the log of a job", () => {
  const at = (second: number) => `2026-11-26T10:00:0${second}.000Z`;
  const job = { id: "j", operation: "Backup", state: "failed", created_at: at(1), started_at: at(2), finished_at: at(6), owner: "admin" } as never;
  const event = (id: number | null, second: number, type: string, data: object, of: string | null = null) => ({ id, time: at(second), type, session_id: "s", job_id: of, data }) as never;
  it("reads a stream that has ended", () => expect(eventsOf('id: 5\n\nid: 6\nevent: job.changed\ndata: {"id":6,"type":"job.changed"}\n\n').map((one) => one.id)).toEqual([6]));
  it("has what concerns the job, in its order, and its end once", () => {
    const events = [
      event(1, 0, "session.changed", { state: "initialized" }), event(2, 3, "session.changed", { state: "identified" }), event(3, 5, "session.thawed", { window_ms: 12, writers: ["app"], file_systems: [] }),
      event(null, 4, "job.progress", {}, "j"), event(4, 6, "job.changed", { operation: "Backup", state: "failed", hresult: "VSS_E_UNEXPECTED" }, "j"), event(5, 4, "job.changed", { operation: "Other", state: "failed" }, "other"),
    ];
    const lines = linesOf(job, events, [{ time: at(4), text: "it broke", hresult: "VSS_E_UNEXPECTED", writer: "app" } as never]);
    expect(lines.map((line) => line.text)).toEqual(["Made by admin.", "Begun.", "The session is identified.", "it broke", "Thawed after 12 ms.", "Backup: failed"]);
    expect(lines.filter((line) => line.bad).map((line) => line.quiet)).toEqual(["VSS_E_UNEXPECTED app", "VSS_E_UNEXPECTED"]);
  });
  it("tells the end where no event does", () => expect(linesOf(job, [], []).at(-1)?.text).toBe("Backup: failed"));
});

describe("speed", () => {
  it("needs a second", () => expect(speedOf([{ at: 0, done: 0 }, { at: 500, done: 9 }], 600)).toBeNull());
  it("is bytes a second", () => expect(speedOf([{ at: 0, done: 1000 }, { at: 2000, done: 5000 }], 2500)).toBe(2000));
  it("falls where nothing comes any more, to nothing in the end", () => {
    const samples = [{ at: 0, done: 1000 }, { at: 2000, done: 5000 }];
    expect([speedOf(samples, 8000), speedOf(samples, 20_000)]).toEqual([500, 0]);
  });
});

describe("the timeline", () => {
  const freeze = (from: number, ms: number) => ({ started_at: new Date(from).toISOString(), ended_at: new Date(from + ms).toISOString(), window_ms: ms });
  it("places a lane inside the window", () => expect(place(freeze(1100, 200), freeze(1000, 400))).toEqual({ from: 0.25, to: 0.75 }));
  it("has a lane for each component that was frozen, and for each file system", () => {
    const window = { ...freeze(1000, 400), file_systems: [{ ...freeze(1200, 100), mount_point: "/srv", fs_type: "ext4" }] };
    const lanes = lanesOf(window, [{ writer: "app", name: "app", freeze: freeze(1100, 200) }, { writer: "pg", name: "main", freeze: null }]);
    expect(lanes.map((lane) => [lane.kind, lane.name, lane.freeze.window_ms])).toEqual([["component", "app", 200], ["file system", "/srv", 100]]);
  });
  it("never leaves it", () => expect(place(freeze(900, 9000), freeze(1000, 400))).toEqual({ from: 0, to: 1 }));
});

describe("a new backup", () => {
  it("says what is chosen and nothing else", () =>
    expect(bodyOf([], " /srv/a \n\n/srv/b\n", "", "main", "full", " n ")).toEqual({ repository: "main", type: "full", paths: ["/srv/a", "/srv/b"], label: "n" }));
});

describe("a link to a new backup", () => {
  it("chooses what it names", () => expect(chosenOf('[{"writer":"app","logical_path":"","name":"main","more":1}]')).toEqual([{ writer: "app", logical_path: "", name: "main" }]));
  it("chooses nothing where it is nonsense", () => expect(["{", "7", "[null, 3, {}]", undefined].map(chosenOf)).toEqual([[], [], [], []]));
});

describe("a component of a restore", () => {
  const writer = {
    instance_id: "i", name: "app", backup_schema: ["roll_forward"],
    components: [
      { logical_path: "", name: "main", selectable_for_restore: false, file_sets: [{ path: "/srv/app", spec: "*", recursive: true }] },
      { logical_path: "main", name: "part", selectable_for_restore: true, file_sets: [] },
      { logical_path: "main\\part", name: "deep", selectable_for_restore: true, file_sets: [] },
      { logical_path: "main", name: "fixed", selectable_for_restore: false, file_sets: [] },
      { logical_path: "mainly", name: "other", selectable_for_restore: true, file_sets: [] },
    ],
  };
  it("has its file sets, its writer's rules, and the parts that may be chosen", () => {
    const found = storedOf({ document: { writers: [writer] }, writers: null } as never, { instance_id: "i", logical_path: "", name: "main" });
    expect([found.schema, found.sets.length, found.below.map((one) => one.name)]).toEqual([["roll_forward"], 1, ["part", "deep"]]);
  });
  it("has none of it where the document says nothing", () => expect(storedOf({ document: null, writers: null } as never, { instance_id: "x", logical_path: "", name: "y" })).toEqual({ schema: [], sets: [], below: [] }));
});

describe("what comes next", () => {
  const of = (state: string, more: object = {}, components: object[] = [], jobs: object[] = []) => ({ session: { state, kind: "backup", backup_state: null, ...more }, components, jobs }) as never;
  const all = () => true;
  it("leads through a backup", () => {
    expect(nextOf(of("initialized"), all)).toBe("metadata");
    expect(nextOf(of("identified"), all)).toBe("backupState");
    expect(nextOf(of("identified", { backup_state: {} }), all)).toBe("addComponent");
    expect(nextOf(of("identified", { backup_state: {} }, [{}]), all)).toBe("startSet");
    expect(nextOf(of("snapshotted", { backup_state: {} }, [{}]), (verb) => verb === "copy" || verb === "complete")).toBe("copy");
    expect(nextOf(of("snapshotted", { backup_state: {} }, [{}], [{ operation: "Copy", state: "succeeded" }]), (verb) => verb === "copy" || verb === "complete")).toBe("complete");
  });
  it("is nothing where nothing is possible", () => expect(nextOf(of("completed"), () => false)).toBeUndefined());
});

describe("a writer's phase", () => {
  it("is only of those that have a component in it", () => {
    const of = (mode: boolean) => ({ session: { backup_state: { component_mode: mode } }, components: [{ instance_id: "a" }] }) as never;
    expect([takesPart({ instance_id: "a" }, of(true)), takesPart({ instance_id: "b" }, of(true)), takesPart({ instance_id: "b" }, of(false))]).toEqual([true, false, true]);
  });
  it("is that of the job in hand while there is one", () => {
    const job = (state: string, operation: string, phase: string) => ({ state, operation, progress: { phase } }) as never;
    expect([livePhase([job("running", "DoSnapshotSet", "freeze")]), livePhase([job("running", "PrepareForBackup", "")]), livePhase([job("succeeded", "DoSnapshotSet", "freeze")]), livePhase([job("running", "Backup", "copy")])]).toEqual([3, 1, null, null]);
    expect(phaseOf("VSS_WS_STABLE", "set_open", 1)).toEqual({ at: 1, failed: false });
    expect(phaseOf("VSS_WS_FAILED_AT_FREEZE", "prepared", 5)).toEqual({ at: 3, failed: true });
  });
  it("is the freeze for whom the daemon holds frozen, and for nobody else", () => {
    expect([phaseNow("app", { writers: ["app"] }, 2), phaseNow("other", { writers: ["app"] }, 2), phaseNow("app", null, 2)]).toEqual([3, 2, 2]);
  });
  it("is told by its state", () => {
    expect(phaseOf("VSS_WS_FAILED_AT_FREEZE", "snapshot_failed")).toEqual({ at: 3, failed: true });
    expect(phaseOf("VSS_WS_STABLE", "completed")).toEqual({ at: 7, failed: false });
    expect(phaseOf("VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "snapshotted")).toEqual({ at: 6, failed: false });
    expect(phaseOf("VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "prepared")).toEqual({ at: 2, failed: false });
  });
});

describe("what is chosen of a backup", () => {
  it("has a path where the API could tell the name", () => {
    expect([pathOf("/", "srv"), pathOf("/srv", "a b/"), pathOf("/srv", " "), pathOf("/srv", "ü")]).toEqual(["/srv", "/srv/a b/", "/srv/ ", "/srv/ü"]);
    expect([pathOf("/srv", "r\\xe9sum\\xe9"), pathOf("/srv", "back\\x5cslash"), pathOf(`/${"ü".repeat(2040)}`, "x".repeat(20))]).toEqual([null, null, null]);
  });
  it("is told once, by the outermost", () => expect(outermost(["/a/b", "/a/b", "/a/bc", "/c", "/a/b/c/d"])).toEqual(["/a/b", "/a/bc", "/c"]));
  it("is everything beneath the top", () => expect(outermost(["/a", "/"])).toEqual(["/"]));
  it("is seen from each entry", () => expect(["/a/b", "/a/b/c", "/a", "/a/bc", "/"].map((one) => choiceOf(["/a/b"], one))).toEqual(["on", "within", "partly", "off", "partly"]));
  it("is looked for from where all of it lies", () =>
    expect([["/srv/data"], ["/srv/data/a", "/srv/data/b/c"], ["/srv/a", "/opt/b"], ["/srv"], [], ["/"], ["C:"], ["/srv/a", "/srv/a/b"]].map(beginOf)).toEqual(["/srv", "/srv/data", "/", "/", "/", "/", "/", "/srv"]));
});

describe("a chart's bars", () => {
  it("are walked through by the keys, and no further", () =>
    expect(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "a"].map((key) => stepOf(key, 2, 4))).toEqual([1, 3, 1, 3, 0, 3, null]));
  it("end at their ends", () => expect([stepOf("ArrowLeft", 0, 4), stepOf("ArrowRight", 3, 4)]).toEqual([0, 3]));
});
