// A look into a snapshot or a backup: directories open in place or are gone into, page by page; in the restore wizard they can be chosen.
import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ApiError } from "../api/client";
import { t } from "../i18n";
import { type Choice, choiceOf, join, outermost, pathOf } from "../model/picking";
import { href, route } from "../state/route";
import { Button, Link, Loading, Time, Trouble } from "../ui/basics";
import { bytes } from "../ui/format";
import { Icon, type IconName } from "../ui/icon";

interface Entry {
  name: string;
  type: string;
  bytes: number;
  mode: string;
  modified_at: string;
  target: string | null;
}

export interface Source {
  /** What the top is called. */
  name: string;
  /** Where a look begins that names no folder. */
  begin?: string;
  read: (path: string, cursor: string | undefined) => Promise<{ items: Entry[]; next_cursor: string | null }>;
}

/** What can be chosen here, if anything. */
export interface Picking {
  chosen: string[];
  choose: (paths: string[]) => void;
}

interface Folder {
  items: Entry[] | undefined;
  next: string | null;
  error: ApiError | null;
  busy: boolean;
}

/** What does not change is read once while it is looked at. */
interface Tree {
  folder: (path: string) => Signal<Folder>;
  load: (path: string) => Promise<void>;
  opened: Record<string, boolean>;
  open: (path: string, on: boolean) => void;
  pick: Picking | undefined;
}

const COLUMNS = 4;

/** The folder in the address. */
export const folderHere = (source: Source): string => route.value.query.path || source.begin || "/";

function useTree(id: string, source: Source, pick: Picking | undefined): Tree {
  const folders = useMemo(() => new Map<string, Signal<Folder>>(), [id]);
  const [opened, setOpened] = useState<Record<string, boolean>>({});
  const folder = (path: string): Signal<Folder> => {
    if (!folders.has(path)) folders.set(path, signal<Folder>({ items: undefined, next: null, error: null, busy: false }));
    return folders.get(path)!;
  };
  const load = async (path: string): Promise<void> => {
    const one = folder(path);
    const { items, next, busy } = one.peek();
    if (busy) return;
    one.value = { items, next, error: null, busy: true };
    try {
      const page = await source.read(path, next ?? undefined);
      one.value = { items: [...(items ?? []), ...page.items], next: page.next_cursor, error: null, busy: false };
    } catch (cause) {
      one.value = { items, next, error: cause as ApiError, busy: false };
    }
  };
  return { folder, load, opened, open: (path, on) => setOpened({ ...opened, [path]: on }), pick };
}

export function Files({ id, source, pick }: { id: string; source: Source; pick?: Picking }) {
  const tree = useTree(id, source, pick);
  const at = folderHere(source);
  const parts = at.split("/").filter(Boolean);
  const nav = useRef<HTMLElement>(null);
  const before = useRef(at);
  useEffect(() => {
    // who went into a folder by its name, or up, goes on from there
    if (before.current !== at && document.activeElement === document.body) nav.current?.querySelector<HTMLElement>("li:last-child a")?.focus({ preventScroll: true });
    before.current = at;
  }, [at]);
  const to = (path: string): string => href(route.value.path, { ...route.value.query, path });
  const crumb = (path: string, name: string) => <a href={to(path)} aria-current={path === at ? "location" : undefined}>{name}</a>;
  return (
    <>
      <nav ref={nav} aria-label={t("Folder")} class="crumb-nav">
        <ol class="crumbs">
          <li>{crumb("/", source.name)}</li>
          {parts.map((part, i) => <li key={i}>/ {crumb(`/${parts.slice(0, i + 1).join("/")}`, part)}</li>)}
        </ol>
      </nav>
      <table class="files">
        <caption class="hidden">{t("Files in {folder}", { folder: at })}</caption>
        <thead><tr><th scope="col">{t("Name")}</th><th scope="col" class="num">{t("Size")}</th><th scope="col" class="p2">{t("Mode")}</th><th scope="col" class="p2">{t("Changed")}</th></tr></thead>
        <tbody><Level key={at} tree={tree} path={at} depth={0} sole /></tbody>
      </table>
    </>
  );
}

/** What lies in a folder. Where it is a single directory that one is open: nobody has to press through the path to what was backed up. */
function Level({ tree, path, depth, sole }: { tree: Tree; path: string; depth: number; sole: boolean }) {
  const folder = tree.folder(path);
  const { items, next, error, busy } = folder.value;
  const last = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (!folder.peek().items) void tree.load(path);
  }, [folder]);
  const more = async (): Promise<void> => {
    const known = items!.length;
    const table = last.current?.closest("table");
    await tree.load(path);
    const first = folder.peek().items?.[known];
    // the button has gone with the last page: the keyboard goes on at what has come
    setTimeout(() => document.activeElement === document.body && first && table?.querySelector<HTMLElement>(`[data-path="${CSS.escape(join(path, first.name))}"]`)?.focus());
  };
  const alone = sole && items?.length === 1 && !next;
  const line = (children: preact.ComponentChildren) => <tr class="told" ref={last}><td colSpan={COLUMNS}><div class="entry" style={{ "--depth": depth }}>{children}</div></td></tr>;
  return (
    <>
      {items?.map((one) => <Row key={one.name} tree={tree} folder={path} entry={one} depth={depth} sole={alone} />)}
      {!items && !error && line(<Loading />)}
      {error && line(<div class="grow"><Trouble error={error} /><Button small onClick={() => tree.load(path)}>{t("Try again")}</Button></div>)}
      {items?.length === 0 && line(<span class="quiet">{t("This folder is empty.")}</span>)}
      {next && !error && line(<Button small icon="plus" label={t("More of {folder}", { folder: path })} onClick={more}>{busy ? t("Loading …") : t("More")}</Button>)}
    </>
  );
}

function Row({ tree, folder, entry, depth, sole }: { tree: Tree; folder: string; entry: Entry; depth: number; sole: boolean }) {
  const path = pathOf(folder, entry.name);
  const directory = entry.type === "directory";
  const open = directory && path !== null && (tree.opened[path] ?? sole);
  const shown = join(folder, entry.name);
  return (
    <>
      <tr>
        <td>
          <div class="entry" style={{ "--depth": depth }} data-path={tree.pick ? undefined : shown} tabIndex={tree.pick ? undefined : -1}>
            {directory && path !== null
              ? <button type="button" class="twist" aria-expanded={open} aria-label={t("Content of {name}", { name: entry.name })} onClick={() => tree.open(path, !open)}><Icon name="right" /></button>
              : <span class="twist" />}
            {tree.pick && <Tick pick={tree.pick} path={path} shown={shown} />}
            <Icon name={(directory ? "folder" : entry.type === "symlink" ? "link" : "file") as IconName} />
            <span class="grow">
              {directory && path !== null ? <Link to={route.value.path} query={{ ...route.value.query, path }}>{entry.name}</Link> : entry.name}
              {entry.target && <span class="quiet"> → {entry.target}</span>}
              <span class="hidden"> ({t(entry.type)})</span>
              {path === null && (tree.pick || directory) && <span class="small quiet why">{tree.pick ? t("Its name cannot be written here as a path: choose the folder it lies in.") : t("Its name cannot be written here as a path: it cannot be opened.")}</span>}
              <span class="only-narrow small quiet"><Time at={entry.modified_at} /></span>
            </span>
          </div>
        </td>
        <td class="num">{entry.type === "file" ? bytes(entry.bytes) : ""}</td>
        <td class="p2"><code>{entry.mode}</code></td>
        <td class="p2"><Time at={entry.modified_at} /></td>
      </tr>
      {open && <Level tree={tree} path={path!} depth={depth + 1} sole={sole} />}
    </>
  );
}

function Tick({ pick, path, shown }: { pick: Picking; path: string | null; shown: string }) {
  const choice: Choice = path === null ? (choiceOf(pick.chosen, shown) === "within" ? "within" : "off") : choiceOf(pick.chosen, path);
  const change = (on: boolean): void => pick.choose(on ? outermost([...pick.chosen, path!]) : pick.chosen.filter((one) => one !== path));
  return (
    <input
      type="checkbox"
      data-path={shown}
      aria-label={t("Choose {path}", { path: shown })}
      title={choice === "within" ? t("Comes with a folder that is chosen.") : path === null ? t("Its name cannot be written here as a path: choose the folder it lies in.") : undefined}
      disabled={path === null || choice === "within"}
      checked={choice === "on" || choice === "within"}
      indeterminate={choice === "partly"}
      onChange={(event) => change(event.currentTarget.checked)}
    />
  );
}
