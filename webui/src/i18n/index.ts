// English is in the sources; other languages are tables from the English text, loaded when they are wanted.
import { effect, signal } from "@preact/signals";
import { language } from "../state/prefs";

const table = signal<Readonly<Record<string, string>>>({});

let wanted: Promise<void> = Promise.resolve();

effect(() => {
  if (language.value === "de") {
    wanted = import("./de").then(
      (module) => {
        if (language.peek() === "de") table.value = module.de;
      },
      () => undefined, // then it is English
    );
  } else {
    table.value = {};
  }
});

/** The reader's language is there: nothing is drawn before, so that no text changes under his eyes. */
export const spoken = (): Promise<void> => wanted;

/** The text in the reader's language; {name} in it is replaced. */
export function t(english: string, values: Record<string, string | number> = {}): string {
  const text = table.value[english] ?? english;
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? String(values[name]) : whole));
}

/** One or many. */
export const tn = (count: number, one: string, many: string): string => t(count === 1 ? one : many, { n: number(count) });

export const number = (value: number, digits = 0): string =>
  value.toLocaleString(language.value, { maximumFractionDigits: digits, minimumFractionDigits: digits });
