// Charts by the keyboard: a row of bars or days is one stop, the arrow keys walk through it, and each is told when it is reached.
import { useId, useState } from "preact/hooks";

/** Where a key leads in a row of so many; null: it is none of these keys. */
export function stepOf(key: string, at: number, count: number): number | null {
  const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: count - 1 }[key];
  return to === undefined ? null : Math.min(Math.max(to, 0), count - 1);
}

/** texts: what each of them says; open: what Enter does with one. */
export function useWalk(texts: string[], open?: (at: number) => void) {
  const id = useId();
  const [where, go] = useState<number | null>(null);
  const at = where === null ? null : Math.min(where, texts.length - 1);
  const item = (i: number) => ({ id: `${id}-${i}`, role: "option" as const, "aria-label": texts[i]!, "aria-selected": i === at });
  const list = {
    role: "listbox" as const,
    tabIndex: 0,
    "aria-orientation": "horizontal" as const,
    "aria-activedescendant": at === null ? undefined : `${id}-${at}`,
    onFocus: () => go(texts.length - 1), // the newest
    onBlur: () => go(null),
    onKeyDown: (event: KeyboardEvent): void => {
      if (at === null || event.altKey || event.ctrlKey || event.metaKey) return;
      const to = stepOf(event.key, at, texts.length);
      if (to !== null) go(to);
      else if (event.key === "Enter" && open) open(at);
      else return;
      event.preventDefault();
    },
  };
  return { at, list, item };
}
