// What this browser remembers: theme, language, and the name and role of who was logged in. No secret is ever kept here.
import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
export type Language = "en" | "de";

function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`quiesced.${name}`);
  } catch {
    return null; // storage is switched off
  }
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`quiesced.${name}`, value);
  } catch {
    // then it lasts as long as the page
  }
}

export interface Known {
  principal: string;
  role: string;
  /** Of the token it was made with; none: all that the role may. */
  scopes?: string[];
}

/** Who was logged in here? Then it is worth asking whether he still is, and the page can be drawn for him meanwhile; the cookie itself no script can see. */
export function knownLogin(): Known | null {
  try {
    const found = JSON.parse(remembered("login") ?? "null") as Partial<Known> | null;
    return typeof found?.principal === "string" && typeof found.role === "string" ? { principal: found.principal, role: found.role, scopes: Array.isArray(found.scopes) ? found.scopes.map(String) : [] } : null;
  } catch {
    return null;
  }
}
export const rememberLogin = (who: Known | null): void => remember("login", JSON.stringify(who && { principal: who.principal, role: who.role, scopes: who.scopes ?? [] }));

const THEMES: readonly string[] = ["auto", "light", "dark"];
const first = remembered("theme") ?? "auto";
export const theme = signal<Theme>(THEMES.includes(first) ? (first as Theme) : "auto");
const preferred = remembered("language") ?? navigator.language.slice(0, 2);
export const language = signal<Language>(preferred === "de" ? "de" : "en");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  remember("theme", theme.value);
});
effect(() => {
  document.documentElement.lang = language.value;
  remember("language", language.value);
});
