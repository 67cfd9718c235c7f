import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Backup, Session, Writer } from "../src/api/types";
import { DAY_MS, judge, stripOf } from "../src/model/protection";

const NOW = Date.UTC(2026, 10, 26, 12);
const at = (days: number): string => new Date(NOW - days * DAY_MS).toISOString();
const backup = (days: number, more: Partial<Backup> = {}): Backup =>
  ({ id: `b${days}`, label: "nightly", complete: true, created_at: at(days), components: [{ writer: "app", logical_path: "", name: "main" }], ...more }) as Backup;
const aborted = (days: number): Session => ({ id: `s${days}`, kind: "backup", label: "nightly", state: "aborted", created_at: at(days) }) as Session;
const writer = { name: "app", components: [{ selectable: true, logical_path: "", name: "main" }] } as unknown as Writer;

describe("judge", () => {
  it("says nothing where nothing was ever tried", () => expect(judge([], [], [writer], NOW).verdict).toBe("none"));
  it("is protected with a fresh backup of everything", () => expect(judge([backup(0.5)], [], [writer], NOW).verdict).toBe("protected"));
  it("is not protected by an incomplete backup", () => {
    const state = judge([backup(0.5, { complete: false })], [aborted(0.5)], [writer], NOW);
    expect(state.verdict).toBe("unprotected");
    expect(state.labels[0]?.lastGood).toBeNull();
  });
  it("is not protected by one that is damaged or gone", () => {
    const state = judge([backup(0.5, { condition: "damaged" })], [], [writer], NOW);
    expect(state).toMatchObject({ verdict: "unprotected", uncovered: [{ writer: "app", component: "main" }] });
    expect(state.labels[0]?.lastGood).toBeNull();
    expect(judge([backup(0.5, { condition: "missing" }), backup(1)], [], [writer], NOW)).toMatchObject({ verdict: "attention", labels: [{ lastGood: { id: "b1" }, unsound: { id: "b0.5" } }] });
    expect(judge([backup(0.5, { condition: "missing" }), backup(3)], [], [writer], NOW).verdict).toBe("unprotected");
    expect(judge([backup(0.5, { condition: "good" }), backup(1, { condition: "damaged" })], [], [writer], NOW).verdict).toBe("protected");
  });
  it("is late after twice the usual interval, and not before", () => {
    const weekly = [backup(13.9), backup(20.9), backup(27.9)];
    expect(judge(weekly, [], [writer], NOW).verdict).toBe("protected");
    expect(judge(weekly.map((one, i) => backup(14.1 + 7 * i, { id: one.id })), [], [writer], NOW).verdict).toBe("unprotected");
  });
  it("gives a single backup two days", () => {
    expect(judge([backup(1.9)], [], [writer], NOW).labels[0]?.late).toBe(false);
    expect(judge([backup(2.1)], [], [writer], NOW).labels[0]?.late).toBe(true);
  });
  it("does not take backups minutes apart for a rhythm", () => expect(judge([backup(0.5), backup(0.501), backup(0.502)], [], [writer], NOW).labels[0]?.late).toBe(false));
  it("tells an attempt that failed after the last good one", () => {
    expect(judge([backup(0.5)], [aborted(0.1)], [writer], NOW).verdict).toBe("attention");
    expect(judge([backup(0.5)], [aborted(0.9)], [writer], NOW).verdict).toBe("protected");
  });
  it("takes a cancelled attempt for no failure, and looks behind it", () => {
    const cancelled = { ...aborted(0.1), reason: "cancelled" } as Session;
    expect(judge([backup(0.5)], [cancelled], [writer], NOW).verdict).toBe("protected");
    expect(judge([backup(0.5)], [cancelled, aborted(0.2)], [writer], NOW).verdict).toBe("attention");
    expect(judge([], [cancelled], [writer], NOW)).toMatchObject({ verdict: "none", labels: [] });
    expect(judge([backup(0.5)], [{ ...aborted(0.1), reason: "lease_expired" } as Session], [writer], NOW).verdict).toBe("attention");
  });
  it("tells an attempt whose snapshots failed", () => {
    const failed = { ...aborted(0.1), state: "snapshot_failed" } as Session;
    expect(judge([backup(0.5)], [failed], [writer], NOW).labels[0]?.failedSince?.id).toBe("s0.1");
  });
  it("takes a hold of a front door for no backup", () => {
    const hold = { ...aborted(0.1), label: "hold:default" } as Session;
    const state = judge([backup(0.5), backup(9, { label: "hold:default", components: [{ writer: "app", logical_path: "", name: "main" }] as Backup["components"] })], [hold], [writer], NOW);
    expect(state.verdict).toBe("protected");
    expect(state.labels.map((one) => one.label)).toEqual(["nightly"]);
    for (const label of ["hold:default", "hold-snapshot"]) expect(judge([], [{ ...hold, label } as Session], [writer], NOW).verdict).toBe("none");
    expect(judge([], [{ ...hold, label: "holdings" } as Session], [writer], NOW).verdict).toBe("unprotected");
  });
  it("names components that are in no good backup", () => {
    const other = { name: "wiki", components: [{ selectable: true, logical_path: "", name: "main" }, { selectable: false, logical_path: "", name: "part" }] } as unknown as Writer;
    const state = judge([backup(0.5)], [], [writer, other], NOW);
    expect(state.verdict).toBe("attention");
    expect(state.uncovered).toEqual([{ writer: "wiki", component: "main" }]);
  });
  it("is not protected where a label never was good, though another one is", () => {
    const tried = { ...aborted(0.1), label: "other" } as Session;
    expect(judge([backup(0.5)], [tried], [writer], NOW).verdict).toBe("unprotected");
  });
  it("leads to the backup of an attempt whose session is not told", () => {
    const left = backup(0.1, { complete: false, sealed: true, session_id: "long gone" });
    expect(judge([left, backup(0.5)], [], [writer], NOW).labels[0]?.failedSince).toMatchObject({ at: "backups", id: "b0.1" });
    expect(judge([left, backup(0.5)], [aborted(0.05)], [writer], NOW).labels[0]?.failedSince).toMatchObject({ at: "sessions", id: "s0.05" });
  });
  it("puts what is late first", () => {
    const labels = judge([backup(0.2, { label: "b" }), backup(9, { label: "z" })], [], [], NOW).labels;
    expect(labels.map((one) => one.label)).toEqual(["z", "b"]);
  });
});

/** The table that `quiescectl status` is held against, too (tests/unit/cli/protection_test.c). */
interface Case {
  name: string;
  verdict: string;
  backups: ({ age_hours: number } & Partial<Backup>)[];
  sessions: ({ age_hours: number } & Partial<Session>)[];
  labels: { label: string | null; last_good: string | null; late: boolean; unsound: string | null; failed_hours_ago: number | null }[];
}
const table = JSON.parse(readFileSync(join(process.env.QUIESCED_SOURCE ?? join(import.meta.dirname, "../.."), "tests/protection.json"), "utf8")) as { now: string; cases: Case[] };

describe("the table of cases", () => {
  const now = Date.parse(table.now);
  const hoursAgo = (hours: number): string => new Date(now - Math.round(hours * 3_600_000)).toISOString();
  const listed = <T>(rows: { age_hours: number }[], more: object): T[] =>
    rows.map(({ age_hours, ...row }) => ({ label: "nightly", session_id: null, created_at: hoursAgo(age_hours), ...more, ...row }) as T);
  it.each(table.cases)("$name", ({ verdict, backups, sessions, labels }) => {
    const state = judge(listed<Backup>(backups, { complete: true, condition: null, sealed: false, components: [] }), listed<Session>(sessions, { kind: "backup", reason: null }), [], now);
    expect(state.verdict).toBe(verdict);
    const told = state.labels.map((one) => [one.label, { last_good: one.lastGood?.id ?? null, late: one.late, unsound: one.unsound?.id ?? null, failed: one.failedSince?.created_at ?? null }]);
    const meant = labels.map((one) => [one.label, { last_good: one.last_good, late: one.late, unsound: one.unsound, failed: one.failed_hours_ago === null ? null : hoursAgo(one.failed_hours_ago) }]);
    expect(new Map(told as [string, object][])).toEqual(new Map(meant as [string, object][]));
  });
  it("has them", () => expect(table.cases.length).toBeGreaterThan(30));
});

describe("strip", () => {
  it("has thirty days, today last, and tells good, failed and both apart", () => {
    const strip = stripOf([NOW, NOW - 2 * DAY_MS], [NOW, NOW - DAY_MS], NOW);
    expect(strip).toHaveLength(30);
    expect(strip.slice(-3).map((day) => day.state)).toEqual(["good", "bad", "mixed"]);
    expect(strip[0]?.state).toBe("none");
  });
  it("does not say of a day that was not read that nothing came", () => {
    const strip = stripOf([NOW], [], NOW, NOW - 10 * DAY_MS);
    expect([strip.filter((day) => day.state === "unknown").length, strip.filter((day) => day.state === "none").length]).toEqual([20, 9]);
  });
  it("leaves out what is older", () => expect(stripOf([NOW - 40 * DAY_MS], [], NOW).every((day) => day.state === "none")).toBe(true));
});
