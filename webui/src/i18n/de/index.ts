// German, by the English text. A unit test holds it against every text in the sources.
import { labels } from "./labels";
import { sentences } from "./sentences";
import { words } from "./words";

export const de: Readonly<Record<string, string>> = { ...sentences, ...labels, ...words };
