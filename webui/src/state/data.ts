// What the screens show: fetched once for all that look at it, refreshed while somebody looks, on events and by polling.
import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { ApiError, login } from "../api/client";
import { streaming } from "./live";

interface Entry {
  data: Signal<unknown>;
  error: Signal<ApiError | undefined>;
  load: () => Promise<unknown>;
  users: number;
  every: number;
  topics: string[];
  text: string;
  timer: ReturnType<typeof setTimeout> | undefined;
  busy: boolean;
  again: boolean;
}

const entries = new Map<string, Entry>();
/** With the stream up, polling only guards against what the stream does not tell. */
const GUARD_MS = 30_000;

const asError = (cause: unknown): ApiError =>
  cause instanceof ApiError ? cause : new ApiError(0, { title: "Unexpected", detail: String(cause) }, "");

function plan(entry: Entry): void {
  clearTimeout(entry.timer);
  if (!entry.users || !login.peek()) return;
  const every = streaming.peek() && entry.topics.length ? Math.max(entry.every, GUARD_MS) : entry.every;
  const lost = entry.error.peek()?.status === 0;
  entry.timer = setTimeout(() => void refresh(entry), document.hidden ? every * 4 : lost ? Math.min(every, 3000) : every);
}

async function refresh(entry: Entry): Promise<void> {
  if (entry.busy) {
    entry.again = true;
    return;
  }
  entry.busy = true;
  try {
    const data = await entry.load();
    const text = JSON.stringify(data);
    if (text !== entry.text || entry.data.peek() === undefined) {
      entry.text = text;
      entry.data.value = data;
    }
    entry.error.value = undefined;
  } catch (cause) {
    entry.error.value = asError(cause);
  }
  entry.busy = false;
  if (entry.again) {
    entry.again = false;
    await refresh(entry);
    return;
  }
  plan(entry);
}

export interface Data<T> {
  value: T | undefined;
  error: ApiError | undefined;
  refresh: () => Promise<void>;
}

/** key names what is fetched (null: nothing); every: milliseconds between polls; topics: resources whose events refresh it. */
export function useData<T>(key: string | null, load: () => Promise<T>, every: number, topics: string[] = []): Data<T> {
  const entry = useMemo(() => {
    const name = key ?? "";
    let found = entries.get(name);
    if (!found) {
      found = { data: signal(undefined), error: signal(undefined), load, users: 0, every, topics, text: "", timer: undefined, busy: false, again: false };
      if (key !== null) entries.set(name, found);
    }
    return found;
  }, [key]);
  entry.load = load;
  entry.every = every;
  useEffect(() => {
    if (key === null) return;
    entry.users++;
    void refresh(entry);
    return () => {
      entry.users--;
      if (entry.users) return;
      clearTimeout(entry.timer);
      // kept for a way back, but not for ever
      setTimeout(() => !entry.users && entries.get(key) === entry && entries.delete(key), 60_000);
    };
  }, [entry]);
  return { value: entry.data.value as T | undefined, error: entry.error.value, refresh: () => refresh(entry) };
}

/** Fetches again whatever is looked at and has one of these topics; none: everything. */
export function invalidate(topics?: string[]): void {
  for (const entry of entries.values()) {
    if (entry.users && (!topics || entry.topics.some((topic) => topics.includes(topic)))) void refresh(entry);
  }
}

/** After logging out, nothing of the former principal is left. */
export function forget(): void {
  for (const entry of entries.values()) clearTimeout(entry.timer);
  entries.clear();
}

if (typeof document !== "undefined") {
  document.addEventListener("visibilitychange", () => !document.hidden && invalidate());
}
