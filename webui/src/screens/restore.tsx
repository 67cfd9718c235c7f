// A look into a backup, and the way back of its files: everything, or what is chosen there.
import { useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import type { Backup, Job } from "../api/types";
import { t, tn } from "../i18n";
import { can } from "../model/can";
import { beginOf, outermost } from "../model/picking";
import { CompleteBadge, ConditionBadge, GradeBadge } from "../model/states";
import { useData } from "../state/data";
import { go } from "../state/route";
import { Button, Check, CopyButton, curl, Field, Head, lines, Loading, Panel, Trouble } from "../ui/basics";
import { absolute, bytes, shortId } from "../ui/format";
import { Icon } from "../ui/icon";
import { Files, type Source } from "./files";

export const useBackup = (id: string) => useData<Backup>(`backup/${id}`, () => get("/backups/{backup_id}", { params: { backup_id: id } }), 15_000, ["backups"]);

/** A repository far away takes its time. */
const LOOK_MS = 120_000;
const PAGE = 200;

const nameOf = (backup: Backup): string => backup.label ?? t("Backup {id}", { id: shortId(backup.id) });
const backTo = (id: string, backup: Backup | undefined) => ({ to: ["backups", id], name: backup ? nameOf(backup) : t("Backup") });

function sourceOf(backup: Backup): Source {
  return {
    name: t("top"),
    begin: backup.components.length ? "/" : beginOf(backup.consistency?.paths.map((one) => one.path) ?? []),
    read: (path, cursor) => get("/backups/{backup_id}/files", { params: { backup_id: backup.id }, query: { path, limit: PAGE, cursor } as never, patience: LOOK_MS }),
  };
}

const Lead = ({ backup }: { backup: Backup }) => <><CompleteBadge complete={backup.complete} /><ConditionBadge condition={backup.condition} /><GradeBadge grade={backup.consistency?.grade} /><span>{absolute(Date.parse(backup.created_at))}</span></>;

export function Content({ id }: { id: string }) {
  const { value: backup, error } = useBackup(id);
  const title = t("Files of a backup");
  if (!backup) return <><Head title={title} back={backTo(id, backup)} />{error ? <Trouble error={error} /> : <Loading />}</>;
  return (
    <>
      <Head title={title} back={backTo(id, backup)} lead={<Lead backup={backup} />}>
        {can("backupRestore") && <Button kind="main" onClick={() => go(["backups", id, "restore"])}>{t("Restore")}</Button>}
      </Head>
      <Panel title={t("Files in it")} flush><Files id={id} source={sourceOf(backup)} /></Panel>
    </>
  );
}

const MOST_PATHS = 1024;

/** Why it cannot be started yet. */
function whyNot(body: { target: string; paths: string[]; accept_incomplete: boolean }, complete: boolean): string | null {
  if (!can("backupRestore")) return t("Your role may not restore.");
  if (!body.target) return t("Say where to first.");
  if (!complete && !body.accept_incomplete) return t("The backup is not complete: accept that first.");
  if (body.paths.length > MOST_PATHS) return t("These are more than {n} paths: choose folders instead.", { n: MOST_PATHS });
  const odd = body.paths.find((path) => !path.startsWith("/"));
  return odd === undefined ? null : t("{path} is no absolute path.", { path: odd });
}

export function Restore({ id }: { id: string }) {
  const data = useBackup(id);
  const [ticked, tick] = useState<string[]>([]);
  const [typed, type] = useState("");
  const [target, setTarget] = useState("");
  const [overwrite, setOverwrite] = useState(false);
  const [accept, setAccept] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const backup = data.value;
  if (!backup) return <>{<Head title={t("Restore")} back={backTo(id, backup)} />}{data.error ? <Trouble error={data.error} /> : <Loading />}</>;
  const paths = outermost([...ticked, ...lines(typed)]);
  const choose = (wanted: string[]): void => {
    const kept = lines(typed).filter((one) => wanted.includes(one));
    if (kept.length < lines(typed).length) type(kept.join("\n"));
    tick(wanted.filter((one) => !kept.includes(one)));
  };
  const body = { target: target.trim(), paths, overwrite, accept_incomplete: accept };
  const why = whyNot(body, backup.complete);
  const start = async (): Promise<void> => {
    try {
      go(["jobs", ((await call("post", "/backups/{backup_id}/restore", { params: { backup_id: id }, body })) as Job).id]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <>
      <Head title={t("Restore files")} back={backTo(id, backup)} lead={<Lead backup={backup} />} />
      <div class="wizard">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (!why) void start();
          }}
        >
          <Panel title={t("What")} flush>
            <Chosen backup={backup} paths={paths} choose={choose} />
            {can("backupFiles") && <div class="picker"><Files id={id} source={sourceOf(backup)} pick={{ chosen: paths, choose }} /></div>}
            <details class="foot">
              <summary>{t("Name paths by hand")}</summary>
              <Field label={t("Original paths, one a line")} hint={t("As they were on the host when they were backed up; a directory brings all beneath it.")}>
                {(field) => <textarea id={field} rows={4} spellcheck={false} value={typed} onInput={(event) => type(event.currentTarget.value)} />}
              </Field>
            </details>
          </Panel>
          <Panel title={t("Where to")}>
            <Field label={t("Target directory")} hint={t("Beneath one of the configured restore.roots. Each file keeps its whole path beneath it.")}>
              {(field) => <input id={field} spellcheck={false} placeholder="/srv/restored" value={target} onInput={(event) => setTarget(event.currentTarget.value)} />}
            </Field>
            <Check checked={overwrite} onChange={setOverwrite}>{t("Replace files that are there already")}</Check>
            {!backup.complete && <Check checked={accept} onChange={setAccept}>{t("Accept that this backup is not complete")}</Check>}
          </Panel>
        </form>
        <aside>
          <Panel title={t("Before it begins")}>
            <ul class="plan-list">
              <li><span>{said(paths.length)}</span></li>
              <li><span>{t("Files are read from the repository, checked against the manifest, and only then moved to their places.")}</span></li>
              <li><span>{overwrite ? t("Files that are there already are replaced.") : t("Nothing that is there is replaced: the restore fails instead.")}</span></li>
              <li><span>{t("Applications are told nothing. To bring a component back with its writer, take Restore with its writers on the page before.")}</span></li>
            </ul>
            <Trouble error={error} />
            <div class="dialog-foot">
              <CopyButton text={curl("POST", `/backups/${id}/restore`, body)}>{t("Copy as curl")}</CopyButton>
              <Button kind="main" icon="play" why={why} onClick={start}>{t("Start the restore")}</Button>
            </div>
          </Panel>
        </aside>
      </div>
    </>
  );
}

const said = (count: number): string => (count ? tn(count, "One thing chosen is restored.", "{n} things chosen are restored.") : t("Everything is restored."));

const MOST_SHOWN = 12;

/** In words what would come back, and each thing to be let go of. */
function Chosen({ backup, paths, choose }: { backup: Backup; paths: string[]; choose: (paths: string[]) => void }) {
  const left = paths.length - MOST_SHOWN;
  return (
    <div class="chosen">
      <p role="status">
        <strong>{paths.length ? tn(paths.length, "One thing chosen", "{n} things chosen") : t("Everything")}</strong>
        {!paths.length && <span class="quiet"> {backup.files !== null && `${tn(backup.files, "{n} file", "{n} files")}, `}{bytes(backup.bytes)}. {t("Choose below what is to come back, if not all of it.")}</span>}
      </p>
      {paths.length > 0 && <Button small kind="ghost" onClick={() => choose([])}>{t("Everything instead")}</Button>}
      {paths.length > 0 && (
        <ul class="chips" aria-label={t("What is chosen")}>
          {paths.slice(0, MOST_SHOWN).map((path) => (
            <li key={path}>
              <code>{path}</code>
              <button type="button" aria-label={t("Do not restore {path}", { path })} onClick={() => choose(paths.filter((one) => one !== path))}><Icon name="close" /></button>
            </li>
          ))}
          {left > 0 && <li class="quiet">{tn(left, "and one more", "and {n} more")}</li>}
        </ul>
      )}
    </div>
  );
}
