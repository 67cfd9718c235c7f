// What is chosen of a backup: original paths, of which a directory brings all beneath it. Nothing chosen is everything.

const MOST = 4095;

export const join = (folder: string, name: string): string => (folder === "/" ? `/${name}` : `${folder}/${name}`);
export const beneath = (path: string, folder: string): boolean => folder === "/" ? path !== "/" : path.startsWith(`${folder}/`);

/** The path by which an entry can be asked for; null: it has none that this page could write. The API writes bytes that are no printable text, and the backslash itself, as \xNN. */
export function pathOf(folder: string, name: string): string | null {
  const path = join(folder, name);
  return name.includes("\\") || new TextEncoder().encode(path).length > MOST ? null : path;
}

/** Once each, and without what a chosen directory brings anyway. */
export const outermost = (paths: string[]): string[] => [...new Set(paths)].filter((one) => !paths.some((other) => beneath(one, other)));

/** on: chosen itself; within: by a directory above it; partly: something beneath it is. */
export type Choice = "on" | "within" | "partly" | "off";

export function choiceOf(chosen: string[], path: string): Choice {
  if (chosen.includes(path)) return "on";
  if (chosen.some((one) => beneath(path, one))) return "within";
  return chosen.some((one) => beneath(one, path)) ? "partly" : "off";
}

/** Where a look begins: the directory that holds all that was asked for, as far as the backup tells; else the top. */
export function beginOf(paths: string[]): string {
  const [first, ...rest] = paths.map((path) => path.split("/").slice(1, -1));
  if (!first || !paths.every((path) => path.startsWith("/"))) return "/";
  const length = first.findIndex((part, i) => rest.some((other) => other[i] !== part));
  return `/${(length < 0 ? first : first.slice(0, length)).join("/")}`;
}
