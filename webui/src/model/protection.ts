// Is this host protected, and if not, why? Pure rules over the catalog, the sessions and what the writers offer: those of docs/monitoring.md, as
// `quiescectl status` has them (daemon/cli/protection.c); tests/protection.json holds both to the same answers.
import type { Backup, Session, Writer } from "../api/types";
import { offered } from "../api/types";

export const DAY_MS = 86_400_000;
export const STRIP_DAYS = 30;
/** A label with a single backup has no rhythm yet: after so long it counts as late. */
export const DEFAULT_INTERVAL_MS = DAY_MS;
/** Late is who stays away for twice its usual interval. */
export const LATE_FACTOR = 2;
/** Of so many, the newest, the median is what is usual. */
const INTERVALS = 20;

/** unknown: before the oldest that was read. */
export type DayState = "none" | "good" | "mixed" | "bad" | "unknown";

export interface StripDay {
  start: number;
  good: number;
  bad: number;
  state: DayState;
}

export interface Attempt {
  id: string;
  created_at: string;
  /** Where it is shown: as a session, or, when that is not told, or ended well, as the backup. */
  at: "sessions" | "backups";
}

export interface LabelState {
  /** null: backups without a label. */
  label: string | null;
  lastGood: Backup | null;
  /** The newest attempt that ended badly, after the last good one. */
  failedSince: Attempt | null;
  /** The newest complete backup, when it is known to be damaged, or gone from its repository. */
  unsound: Backup | null;
  /** How long it usually takes from one good backup to the next; null with fewer than two. */
  usualMs: number | null;
  late: boolean;
  strip: StripDay[];
}

export interface Uncovered {
  writer: string;
  component: string;
}

export type Verdict = "none" | "protected" | "attention" | "unprotected";

export interface Protection {
  verdict: Verdict;
  labels: LabelState[];
  uncovered: Uncovered[];
}

function median(values: number[]): number | null {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? null;
}

/** Days of the reader's calendar, the last one today; what was before `since` was not read. */
export function stripOf(good: number[], bad: number[], now: number, since = 0): StripDay[] {
  const days: StripDay[] = [];
  const today = new Date(now);
  for (let back = STRIP_DAYS - 1; back >= 0; back--) {
    const start = new Date(today.getFullYear(), today.getMonth(), today.getDate() - back).getTime();
    const end = new Date(today.getFullYear(), today.getMonth(), today.getDate() - back + 1).getTime();
    const within = (at: number): boolean => at >= start && at < end;
    const day = { start, good: good.filter(within).length, bad: bad.filter(within).length };
    days.push({ ...day, state: start < since ? "unknown" : day.good && day.bad ? "mixed" : day.good ? "good" : day.bad ? "bad" : "none" });
  }
  return days;
}

/** What `quiescectl hold` freezes or snapshots for somebody else has these labels: no backup is meant. */
const isHold = (one: { label: string | null }): boolean => one.label === "hold-snapshot" || (one.label?.startsWith("hold:") ?? false);
/** Who cancels a backup knows: that is no failure. */
const failedSession = (session: Session): boolean => session.reason !== "cancelled" && (session.state === "aborted" || session.state === "snapshot_failed");
/**
 * An incomplete backup is an attempt that ended badly, unless its session goes on, or was cancelled. Where the session is not told (older than
 * retention, or somebody else's), what was written into the repository decides. Of a session that failed the session is told.
 */
const failedAlone = (backup: Backup, session: Session | undefined): boolean => lacks(backup) || (!backup.complete && (session ? session.state === "completed" : backup.sealed));

/** Is it known that this can no longer be restored? Most backups are not checked: that is null, and counts as good. */
export const unsound = (backup: Backup): boolean => backup.condition === "damaged" || backup.condition === "missing";
/** BackupComplete was reached, but not of each component it was said that it had been copied, or nothing at all was. */
export const lacks = (backup: Backup): boolean =>
  backup.complete && (backup.components.some((component) => component.succeeded === false) || (backup.files === 0 && (backup.type === "full" || backup.type === "copy" || backup.type === null)));
export const protects = (backup: Backup): boolean => backup.complete && !unsound(backup) && !lacks(backup);

/** `backups` and `sessions` newest first, as the API lists them; of both everything since `since`. */
export function judge(allBackups: Backup[], sessions: Session[], writers: Writer[], now: number, since = 0): Protection {
  const backups = allBackups.filter((backup) => !isHold(backup));
  const attempts = sessions.filter((session) => session.kind === "backup" && !isHold(session));
  const known = new Map(attempts.map((session) => [session.id, session]));
  const failures = attempts.filter(failedSession);
  const names = new Set<string | null>();
  for (const backup of backups) names.add(backup.label);
  for (const session of failures) if (session.label !== null) names.add(session.label);

  const labels: LabelState[] = [];
  for (const label of names) {
    const complete = backups.filter((backup) => backup.label === label && backup.complete && !lacks(backup));
    const good = complete.filter(protects);
    const goodAt = good.map((backup) => Date.parse(backup.created_at));
    const failed = failuresOf(label, failures, backups, known);
    if (!complete.length && !failed.length) continue; // begun, and not ended yet
    const intervals = goodAt.slice(0, INTERVALS).flatMap((at, i) => (i + 1 < goodAt.length ? [at - goodAt[i + 1]!] : []));
    const usualMs = median(intervals);
    const lastAt = goodAt[0];
    const newest = failed[0];
    labels.push({
      label,
      lastGood: good[0] ?? null,
      failedSince: newest && (lastAt === undefined || Date.parse(newest.created_at) > lastAt) ? newest : null,
      unsound: complete[0] && unsound(complete[0]) ? complete[0] : null,
      usualMs,
      // hand-made backups minutes apart are no rhythm: nobody is late within a day
      late: lastAt !== undefined && now - lastAt > LATE_FACTOR * Math.max(usualMs ?? 0, DEFAULT_INTERVAL_MS),
      strip: stripOf(goodAt, failed.map((attempt) => Date.parse(attempt.created_at)), now, since),
    });
  }
  labels.sort((a, b) => rank(a) - rank(b) || (a.label ?? "").localeCompare(b.label ?? ""));

  const covered = new Set(backups.filter(protects).flatMap((backup) => backup.components.map((c) => key(c.writer, c.logical_path, c.name))));
  const uncovered = writers.flatMap((writer) =>
    offered(writer)
      .filter((component) => component.selectable && !covered.has(key(writer.name, component.logical_path, component.name)))
      .map((component) => ({ writer: writer.name, component: component.name })),
  );
  return { verdict: verdictOf(labels, uncovered), labels, uncovered };
}

const key = (writer: string, path: string, name: string): string => JSON.stringify([writer, path, name]);
const rank = (label: LabelState): number => (label.late || !label.lastGood ? 0 : label.failedSince || label.unsound ? 1 : 2);

/** Newest first. */
function failuresOf(label: string | null, failures: Session[], backups: Backup[], known: Map<string, Session>): Attempt[] {
  const told: Attempt[] = failures.filter((session) => session.label === label).map(({ id, created_at }) => ({ id, created_at, at: "sessions" }));
  const alone: Attempt[] = backups
    .filter((backup) => backup.label === label && failedAlone(backup, known.get(backup.session_id ?? "")))
    .map(({ id, created_at }) => ({ id, created_at, at: "backups" }));
  return [...told, ...alone].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
}

/** Without a good backup in time a label is not protected, whatever others are; with one that failed since, or is damaged, it is, with gaps. */
function verdictOf(labels: LabelState[], uncovered: Uncovered[]): Verdict {
  if (!labels.length) return "none";
  if (labels.some((label) => label.late || !label.lastGood)) return "unprotected";
  return labels.some((label) => label.failedSince || label.unsound) || uncovered.length ? "attention" : "protected";
}
