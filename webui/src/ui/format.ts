// Numbers and times for people. Pure.
import { number, t } from "../i18n";
import { language } from "../state/prefs";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || value < 0) return "–";
  let unit = 0;
  let size = value;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${number(size, unit > 0 && size < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

/** A span in milliseconds: "0.4 ms", "562 ms", "3.2 s", "4 min 12 s", "3 h 5 min", "4 d 2 h". */
export function span(ms: number): string {
  if (ms < 10) return `${number(Math.max(0, ms), 1)} ms`;
  if (ms < 1000) return `${number(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${number(seconds, 1)} s`;
  return coarse(ms);
}

/** The same in whole seconds and above. */
export function coarse(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h${Math.floor((s % 3600) / 60) ? ` ${Math.floor((s % 3600) / 60)} min` : ""}`;
  return `${Math.floor(s / 86400)} d${Math.floor((s % 86400) / 3600) ? ` ${Math.floor((s % 86400) / 3600)} h` : ""}`;
}

/** One unit only: "45 s", "12 min", "3 h", "6 d". */
export function brief(ms: number): string {
  const s = Math.max(0, ms / 1000);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

export function relative(at: number, now: number): string {
  if (Math.abs(now - at) < 5000) return t("just now");
  return at <= now ? t("{span} ago", { span: brief(now - at) }) : t("in {span}", { span: brief(at - now) });
}

export const absolute = (at: number): string =>
  new Date(at).toLocaleString(language.value, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const shortTime = (at: number): string => new Date(at).toLocaleTimeString(language.value, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** To the millisecond, for logs. */
export const stamp = (at: number): string => new Date(at).toLocaleTimeString(language.value, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

export const day = (at: number): string => new Date(at).toLocaleDateString(language.value, { weekday: "short", day: "numeric", month: "short" });

/** "DoSnapshotSet" and "choose_components" as words. */
export const words = (name: string): string => name.replace(/_/g, " ");

/** A word of the API (a phase, a context, a reason) as the reader says it. */
export const phrase = (name: string | null | undefined): string => t(words(name ?? ""));

/** A phase of a job. */
export const phaseName = (phase: string | null | undefined): string => phrase(phase === "complete" ? "backup_complete" : phase);

export const shortId = (id: string): string => `…${id.slice(-12)}`;
