// What a verb of a session wants to know before it is called: a form for each.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call, get } from "../api/client";
import type { BackupType } from "../api/types";
import type { components } from "../api/contract";
import { t } from "../i18n";
import { useData } from "../state/data";
import { Button, Check, Dialog, Field, lines, Loading, Note } from "../ui/basics";
import { phrase } from "../ui/format";
import type { Whole } from "./sessions";

export type Attempt = (run: () => Promise<unknown>) => Promise<void>;

interface FormProps {
  title: string;
  whole: Whole;
  onClose: () => void;
  attempt: Attempt;
}

/** A dialog that closes and then calls; what the daemon says against it is shown on the screen beneath. */
function FormDialog({ title, onClose, attempt, run, why, children }: Omit<FormProps, "whole"> & { run: () => Promise<unknown>; why?: string | null; children: ComponentChildren }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (why) return;
          onClose();
          void attempt(run);
        }}
      >
        {children}
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Back")}</Button>
          <Button kind="main" type="submit" why={why}>{title}</Button>
        </div>
      </form>
    </Dialog>
  );
}

export const Select = ({ id, value, options, onChange }: { id: string; value: string; options: readonly (readonly [string, string])[]; onChange: (value: string) => void }) => (
  <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
    {options.map(([key, name]) => <option key={key} value={key} selected={key === value}>{name}</option>)}
  </select>
);

const CONTEXTS = ["backup", "file_share_backup", "nas_rollback", "app_rollback", "client_accessible", "client_accessible_writers"] as const;
export type Context = (typeof CONTEXTS)[number];
export const contextOptions = (): [string, string][] => CONTEXTS.map((one) => [one, phrase(one)]);
/** The two that choose among providers. The others change nothing here, or are never possible: see ContextAttribute of openapi.yaml. */
const ATTRIBUTES = ["differential", "plex"] as const;

function ContextForm({ whole, ...rest }: FormProps) {
  const [context, setContext] = useState("app_rollback");
  const [attribute, setAttribute] = useState("");
  return (
    <FormDialog {...rest} run={() => call("put", "/sessions/{session_id}/context", { params: { session_id: whole.session.id }, body: { context: context as Context, attributes: attribute ? [attribute as (typeof ATTRIBUTES)[number]] : [] } })}>
      <Field label={t("Context")} hint={t("What the snapshots are for; the others than backup leave them behind.")}>{(id) => <Select id={id} value={context} options={contextOptions()} onChange={setContext} />}</Field>
      <Field label={t("Kind of snapshot")} hint={t("Only providers that make such snapshots are chosen then.")}>
        {(id) => <Select id={id} value={attribute} options={[["", t("any")], ...ATTRIBUTES.map((one): [string, string] => [one, one])]} onChange={setAttribute} />}
      </Field>
    </FormDialog>
  );
}

const FILTERS = [
  ["disable_instances", "Leave out the chosen writers"],
  ["disable", "Leave out every writer of the chosen classes"],
  ["enable", "Only writers of the chosen classes"],
] as const;
type Filter = (typeof FILTERS)[number][0];

function FilterForm({ whole, ...rest }: FormProps) {
  const writers = useData("writers", async () => (await get("/writers")).items, 60_000);
  const [how, setHow] = useState<Filter>("disable_instances");
  const [chosen, choose] = useState<string[]>([]);
  const usable = (writers.value ?? []).filter((one) => one.instance_id && one.class_id);
  const seen = new Set<string>();
  const keys = usable
    .map((one) => ({ key: how === "disable_instances" ? one.instance_id! : one.class_id!, name: how === "disable_instances" ? one.name : `${one.type} (${usable.filter((other) => other.class_id === one.class_id).map((other) => other.name).join(", ")})` }))
    .filter((one) => !seen.has(one.key) && seen.add(one.key));
  const picked = chosen.filter((one) => seen.has(one));
  return (
    <FormDialog {...rest} why={picked.length ? null : t("Choose a writer first.")} run={() => call("put", "/sessions/{session_id}/writer-filter", { params: { session_id: whole.session.id }, body: { [how]: picked } })}>
      <Field label={t("Rule")}>{(id) => <Select id={id} value={how} options={FILTERS.map(([key, name]) => [key, t(name)])} onChange={(value) => { setHow(value as Filter); choose([]); }} />}</Field>
      <fieldset>
        <legend>{how === "disable_instances" ? t("Writers") : t("Classes")}</legend>
        {!writers.value && <Loading />}
        {keys.map((one) => (
          <Check key={one.key} checked={chosen.includes(one.key)} onChange={(on) => choose(on ? [...chosen, one.key] : chosen.filter((other) => other !== one.key))}>{one.name}</Check>
        ))}
      </fieldset>
      <p class="small quiet">{t("It is added to what was filtered before. Whoever is left out is not asked, and nothing of it can be backed up in this session.")}</p>
    </FormDialog>
  );
}

export const failureOptions = (): [string, string][] => [["fail", t("the job fails")], ["report", t("the job goes on; the writer's status tells")]];

export const TYPES = ["full", "incremental", "differential", "log", "copy", "other"] as const;

function TypeForm({ whole, ...rest }: FormProps) {
  const [type, setType] = useState<BackupType>("full");
  const [byComponent, setByComponent] = useState(true);
  const [system, setSystem] = useState(false);
  const [partial, setPartial] = useState(false);
  const body = { type, component_mode: byComponent, bootable_system_state: system, partial_files: partial };
  return (
    <FormDialog {...rest} run={() => call("put", "/sessions/{session_id}/backup-state", { params: { session_id: whole.session.id }, body })}>
      <Field label={t("Type")}>{(id) => <Select id={id} value={type} options={TYPES.map((one) => [one, t(one)])} onChange={(value) => setType(value as BackupType)} />}</Field>
      <details>
        <summary>{t("What else writers are told")}</summary>
        <Check checked={byComponent} onChange={setByComponent}>{t("Components are chosen one by one")}</Check>
        <Check checked={partial} onChange={setPartial}>{t("Parts of files may be backed up")}</Check>
        <Check checked={system} onChange={setSystem}>{t("A bootable system state is backed up")}</Check>
      </details>
    </FormDialog>
  );
}

const WAYS = [["by_copy", "Files are copied back"], ["import", "By importing the snapshots"], ["other", "In another way"]] as const;

function RestoreStateForm({ whole, ...rest }: FormProps) {
  const [type, setType] = useState<(typeof WAYS)[number][0]>("by_copy");
  return (
    <FormDialog {...rest} run={() => call("put", "/sessions/{session_id}/restore-state", { params: { session_id: whole.session.id }, body: { type } })}>
      <Field label={t("How files come back")} hint={t("Writers are told before and after the restore.")}>{(id) => <Select id={id} value={type} options={WAYS.map(([key, name]) => [key, t(name)])} onChange={(value) => setType(value as typeof type)} />}</Field>
    </FormDialog>
  );
}

function ComponentForm({ whole, ...rest }: FormProps) {
  const choices = (whole.writers ?? []).flatMap((writer) =>
    writer.components.filter((one) => one.selectable).map((one): [string, string] => [JSON.stringify([writer.instance_id, one.logical_path, one.name]), `${writer.instance_name || writer.name} / ${one.logical_path ? `${one.logical_path}\\` : ""}${one.name}`]),
  );
  const [value, setValue] = useState(choices[0]?.[0] ?? "");
  const run = (): Promise<unknown> => {
    const [instance_id, logical_path, name] = JSON.parse(value) as [string, string, string];
    return call("post", "/sessions/{session_id}/components", { params: { session_id: whole.session.id }, body: { instance_id, logical_path, name } });
  };
  return (
    <FormDialog {...rest} run={run} why={value ? null : t("No writer offers a component.")}>
      <Field label={t("Component")}>{(id) => <Select id={id} value={value} options={choices} onChange={setValue} />}</Field>
    </FormDialog>
  );
}

function VolumeForm({ whole, ...rest }: FormProps) {
  const providers = useData("providers/names", async () => (await get("/providers")).items, 60_000);
  const [path, setPath] = useState("");
  const [provider, setProvider] = useState("");
  const [excludes, setExcludes] = useState("");
  const body = { path, ...(provider && { provider }), ...(lines(excludes).length && { excludes: lines(excludes) }) } as components["schemas"]["SnapshotSetAdd"];
  return (
    <FormDialog {...rest} run={() => call("post", "/sessions/{session_id}/snapshot-set/volumes", { params: { session_id: whole.session.id }, body })}>
      <Field label={t("Path")} hint={t("A directory of the daemon's host; its volume is added.")}>{(id) => <input id={id} required placeholder="/srv/data" value={path} onInput={(event) => setPath(event.currentTarget.value)} />}</Field>
      <Field label={t("Provider")}>
        {(id) => <Select id={id} value={provider} options={[["", t("the best that fits")], ...(providers.value ?? []).filter((one) => one.available).map((one): [string, string] => [one.name, one.name])]} onChange={setProvider} />}
      </Field>
      <details>
        <summary>{t("Leave out")}</summary>
        <Field label={t("Excluded paths, one a line")} hint={t("A nested mount or subvolume has to be added or named here.")}>{(id) => <textarea id={id} rows={2} spellcheck={false} value={excludes} onInput={(event) => setExcludes(event.currentTarget.value)} />}</Field>
      </details>
    </FormDialog>
  );
}

function CopyForm({ whole, ...rest }: FormProps) {
  const repositories = useData("repositories", async () => (await get("/repositories")).items, 60_000);
  const [value, setValue] = useState("");
  const repository = value || (repositories.value?.[0]?.name ?? "");
  return (
    <FormDialog {...rest} why={repository ? null : t("No repository yet")} run={() => call("post", "/sessions/{session_id}/copy", { params: { session_id: whole.session.id }, body: { repository } })}>
      <Field label={t("Repository")}>{(id) => <Select id={id} value={repository} options={(repositories.value ?? []).map((one) => [one.name, `${one.name} (${one.mover})`])} onChange={setValue} />}</Field>
    </FormDialog>
  );
}

/** Of the selected components some, or all; and of a backup that is not complete, or of one that the session does not name. */
function RestoreFilesForm({ whole, ...rest }: FormProps) {
  const { session, components: all } = whole;
  const selected = all.filter((one) => one.selected);
  const [chosen, choose] = useState<string[]>(selected.map((one) => one.id));
  const [backup, setBackup] = useState("");
  const [accept, setAccept] = useState(false);
  const some = chosen.length < selected.length;
  const body = { ...(some && { components: chosen }), ...(!session.backup_id && { backup_id: backup }), ...(accept && { accept_incomplete: true }) };
  return (
    <FormDialog {...rest} why={chosen.length || !selected.length ? null : t("Choose a component first.")} run={() => call("post", "/sessions/{session_id}/restore-files", { params: { session_id: session.id }, body })}>
      <fieldset>
        <legend>{t("Components")}</legend>
        {selected.map((one) => (
          <Check key={one.id} checked={chosen.includes(one.id)} onChange={(on) => choose(on ? [...chosen, one.id] : chosen.filter((other) => other !== one.id))}>
            {one.writer} / {one.name} {one.file_restore_status && <span class="quiet">{t("so far")}: {t(one.file_restore_status)}</span>}
          </Check>
        ))}
      </fieldset>
      {!session.backup_id && <Field label={t("Backup")} hint={t("The session was made from a document: say by its id which backup of the catalog has the files.")}>{(id) => <input id={id} required value={backup} onInput={(event) => setBackup(event.currentTarget.value)} />}</Field>}
      <Check checked={accept} onChange={setAccept}>{t("Accept that this backup is not complete")}</Check>
      <Note tone="warn" icon="warn">{t("Files that are there already are replaced.")}</Note>
    </FormDialog>
  );
}

export const FORMS = {
  context: ContextForm,
  filter: FilterForm,
  type: TypeForm,
  restoreState: RestoreStateForm,
  component: ComponentForm,
  volume: VolumeForm,
  repository: CopyForm,
  restoreFiles: RestoreFilesForm,
} as const;
