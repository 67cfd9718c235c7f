// Keyset lists: the first page stays fresh, more pages come when they are scrolled to, and items on later pages
// that can still change are asked for one by one.
import { useEffect, useMemo } from "preact/hooks";
import { signal } from "@preact/signals";
import { ApiError } from "../api/client";
import { useData } from "./data";

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export interface List<T> {
  items: T[] | undefined;
  error: ApiError | undefined;
  more: boolean;
  loadMore: () => Promise<void>;
  refresh: () => Promise<void>;
}

const MOST_LOOKED_AFTER = 20;

/** The first page over what was loaded before: newer items in front, known ones renewed, and what the page passes over has gone. */
export function merge<T extends { id: string }>(fresh: T[], older: T[], complete: boolean): T[] {
  if (complete || !fresh.length) return fresh;
  const seen = new Set(fresh.map((item) => item.id));
  const last = fresh[fresh.length - 1]!;
  const at = older.findIndex((item) => item.id === last.id);
  const rest = at >= 0 ? older.slice(at + 1) : older.filter((item) => item.id < last.id); // UUIDv7: by time
  return [...fresh, ...rest.filter((item) => !seen.has(item.id))];
}

export function useList<T extends { id: string }>(
  key: string,
  page: (cursor: string | undefined) => Promise<Page<T>>,
  every: number,
  topics: string[] = [],
  unfinished?: { is: (item: T) => boolean; read: (id: string) => Promise<T> },
): List<T> {
  const later = useMemo(() => signal<{ items: T[]; cursor: string | null | undefined }>({ items: [], cursor: undefined }), [key]);
  const error = useMemo(() => signal<ApiError | undefined>(undefined), [key]);
  const busy = useMemo(() => ({ now: false }), [key]);

  const first = useData<Page<T>>(
    key,
    async () => {
      const fresh = await page(undefined);
      const known = later.peek();
      if (known.items.length) {
        let rest = merge(fresh.items, known.items, fresh.next_cursor === null).slice(fresh.items.length);
        if (unfinished) {
          const moving = rest.filter(unfinished.is).slice(0, MOST_LOOKED_AFTER);
          const renewed = new Map((await Promise.all(moving.map((item) => unfinished.read(item.id).catch(() => item)))).map((item) => [item.id, item]));
          rest = rest.map((item) => renewed.get(item.id) ?? item);
        }
        later.value = { items: rest, cursor: known.cursor };
      }
      return fresh;
    },
    every,
    topics,
  );

  useEffect(() => {
    error.value = undefined;
  }, [key]);

  const cursor = later.value.items.length ? later.value.cursor : first.value?.next_cursor;
  return {
    items: first.value && merge(first.value.items, [...first.value.items, ...later.value.items], first.value.next_cursor === null),
    error: first.error ?? error.value,
    more: Boolean(cursor),
    loadMore: async () => {
      if (!cursor || busy.now) return;
      busy.now = true;
      try {
        const next = await page(cursor);
        later.value = { items: [...later.value.items, ...next.items], cursor: next.next_cursor };
        error.value = undefined;
      } catch (cause) {
        error.value = cause instanceof ApiError ? cause : undefined;
      }
      busy.now = false;
    },
    refresh: first.refresh,
  };
}
