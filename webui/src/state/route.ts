// Hash routes: "#/jobs?state=running". Every filter lives in the address, so that each view can be sent as a link.
import { computed, signal } from "@preact/signals";

export interface Route {
  path: string[];
  query: Readonly<Record<string, string>>;
}

export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const segments = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { path: segments, query: Object.fromEntries(new URLSearchParams(search)) };
}

export function href(path: string[], query: Record<string, string | undefined | null> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  return `#/${path.map(encodeURIComponent).join("/")}${search.size ? `?${search}` : ""}`;
}

const hash = signal(typeof location === "undefined" ? "" : location.hash);
if (typeof window !== "undefined") window.addEventListener("hashchange", () => (hash.value = location.hash));

export const route = computed(() => parse(hash.value));

export function go(path: string[], query: Record<string, string | undefined | null> = {}): void {
  location.hash = href(path, query);
}

/** Changes filters of the present view, without a step in the history. */
export function filter(change: Record<string, string | undefined | null>): void {
  const to = href(route.value.path, { ...route.value.query, ...change });
  history.replaceState(null, "", to);
  hash.value = to;
}
