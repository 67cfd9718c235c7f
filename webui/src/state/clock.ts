// One clock for everything that shows an age: a second's step, still while nobody looks. It is the daemon's clock: times are told by that.
import { computed, signal } from "@preact/signals";

/** Headers tell whole seconds, and are a moment under way: less than this is no difference. */
const EXACT_MS = 2000;

let ahead = 0;

/** What the daemon's clock shows, as far as its answers tell. */
export const clock = (): number => Date.now() + ahead;

export const now = signal(clock());
/** For what is worth drawing again once in a minute only. */
export const minute = computed(() => Math.floor(now.value / 60_000) * 60_000);

/** An answer bore this date (an HTTP header): where this browser's clock is wrong, ages are still right. */
export function told(date: string | null): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const difference = at + 500 - Date.now();
  if (Math.abs(difference - ahead) <= EXACT_MS) return;
  ahead = Math.abs(difference) <= EXACT_MS ? 0 : difference;
  now.value = clock();
}

if (typeof window !== "undefined") {
  setInterval(() => {
    if (!document.hidden) now.value = clock();
  }, 1000);
  document.addEventListener("visibilitychange", () => (now.value = clock()));
}
