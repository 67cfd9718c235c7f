// One component of a session: what may be said of it before its backup, and how it is to be restored.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { type ApiError, call } from "../api/client";
import type { components } from "../api/contract";
import type { Component } from "../api/types";
import { t } from "../i18n";
import { whyNot, type VerbName } from "../model/verbs";
import { Badge, Button, Check, Dialog, Field, Trouble } from "../ui/basics";
import { Select } from "./forms";
import { factsOf, type Whole } from "./sessions";

type Patch = components["schemas"]["ComponentPatch"];
type FileSet = components["schemas"]["FileSet"];

/** Joined as the daemon does: the path of a component within its writer. */
const fullPath = (one: { logical_path: string; name: string }): string => (one.logical_path ? `${one.logical_path}\\${one.name}` : one.name);

/** What the stored document says of the component: its writer's rules, its file sets, and what came along with it. */
export function storedOf(whole: Pick<Whole, "document" | "writers">, component: Pick<Component, "instance_id" | "logical_path" | "name">) {
  const writer = (whole.document?.writers ?? whole.writers ?? []).find((one) => one.instance_id === component.instance_id);
  const own = writer?.components?.find((one) => one.logical_path === component.logical_path && one.name === component.name);
  const under = fullPath(component);
  const below = (writer?.components ?? []).filter((one) => one.selectable_for_restore && (one.logical_path === under || one.logical_path.startsWith(`${under}\\`)));
  return { schema: writer?.backup_schema ?? [], sets: own?.file_sets ?? [], below };
}

export function ComponentDialog({ whole, component, onClose, refresh }: { whole: Whole; component: Component; onClose: () => void; refresh: () => Promise<void> }) {
  const [error, setError] = useState<ApiError | null>(null);
  const [said, say] = useState("");
  const params = { session_id: whole.session.id, component_id: component.id };
  const attempt = async (what: string, run: () => Promise<unknown>): Promise<void> => {
    try {
      await run();
      setError(null);
      say(what);
    } catch (cause) {
      setError(cause as ApiError);
      say("");
    }
    await refresh();
  };
  const patch = (body: Patch): Promise<void> => attempt(t("Saved."), () => call("patch", "/sessions/{session_id}/components/{component_id}", { params, body }));
  const shared = { whole, component, params, attempt, patch };
  return (
    <Dialog wide title={`${component.writer} / ${fullPath(component)}`} onClose={onClose}>
      <p class="small" role="status">{said && <Badge tone="ok" icon="ok">{said}</Badge>}</p>
      <Trouble error={error} />
      {whole.session.kind === "backup" ? (
        <BackupOptions {...shared} />
      ) : (
        <>
          <RestoreOptions {...shared} />
          <Parts {...shared} />
          <Targets {...shared} />
          <Outcome {...shared} />
        </>
      )}
      <div class="dialog-foot"><Button kind="main" onClick={onClose}>{t("Done")}</Button></div>
    </Dialog>
  );
}

interface PartProps {
  whole: Whole;
  component: Component;
  params: { session_id: string; component_id: string };
  attempt: (what: string, run: () => Promise<unknown>) => Promise<void>;
  patch: (body: Patch) => Promise<void>;
}

/** Shut, with the reason, where its verb has no place now. */
function Part({ title, why, onSubmit, button, children }: { title: string; why: string | null; onSubmit: () => void; button: string; children: ComponentChildren }) {
  return (
    <form
      class="part"
      onSubmit={(event) => {
        event.preventDefault();
        if (!why) onSubmit();
      }}
    >
      <fieldset disabled={Boolean(why)}>
        <legend>{title}</legend>
        {children}
      </fieldset>
      {why ? <p class="small quiet">{t(why)}</p> : <Button small type="submit">{button}</Button>}
    </form>
  );
}

const reason = (verb: VerbName, whole: Whole): string | null => whyNot(verb, factsOf(whole));

function BackupOptions({ whole, component, patch }: PartProps) {
  const [options, setOptions] = useState(component.backup_options ?? "");
  const [stamp, setStamp] = useState(component.previous_stamp ?? "");
  return (
    <Part title={t("Before the backup")} why={reason("options", whole)} button={t("Save")} onSubmit={() => void patch({ backup_options: options || null, previous_stamp: stamp || null })}>
      <Field label={t("Options for its writer")} hint={t("In the writer's own words.")}>{(id) => <textarea id={id} rows={2} spellcheck={false} value={options} onInput={(event) => setOptions(event.currentTarget.value)} />}</Field>
      <Field label={t("Stamp of the backup before")} hint={t("What an incremental, differential or log backup goes on from.")}>{(id) => <input id={id} value={stamp} onInput={(event) => setStamp(event.currentTarget.value)} />}</Field>
    </Part>
  );
}

const ROLLS = [["", "not said"], ["none", "not at all"], ["all", "all logs"], ["partial", "up to a point"]] as const;

function RestoreOptions({ whole, component, patch }: PartProps) {
  const { schema } = storedOf(whole, component);
  const [options, setOptions] = useState(component.restore_options ?? "");
  const [more, setMore] = useState(component.additional_restores ?? false);
  const [authoritative, setAuthoritative] = useState(component.authoritative_restore ?? false);
  const [roll, setRoll] = useState<string>(component.roll_forward?.type ?? "");
  const [point, setPoint] = useState(component.roll_forward?.point ?? "");
  const [name, setName] = useState(component.restore_name ?? "");
  const can = (what: string): boolean => schema.includes(what);
  const body = (): Patch => ({
    restore_options: options || null,
    additional_restores: more,
    ...(can("authoritative") && { authoritative_restore: authoritative }),
    ...(can("roll_forward") && { roll_forward: roll ? { type: roll as "none" | "all" | "partial", point: roll === "partial" ? point : null } : null }),
    ...(can("restore_rename") && { restore_name: name || null }),
  });
  const lacking = [["authoritative", t("an authoritative restore")], ["roll_forward", t("rolling forward")], ["restore_rename", t("another name")]].filter(([key]) => !can(key!)).map(([, text]) => text);
  return (
    <Part title={t("How to restore")} why={reason("restoreOptions", whole)} button={t("Save")} onSubmit={() => void patch(body())}>
      <Field label={t("Options for its writer")} hint={t("In the writer's own words.")}>{(id) => <textarea id={id} rows={2} spellcheck={false} value={options} onInput={(event) => setOptions(event.currentTarget.value)} />}</Field>
      <Check checked={more} onChange={setMore}>{t("More restores follow on top of this one")}</Check>
      {can("authoritative") && <Check checked={authoritative} onChange={setAuthoritative}>{t("Authoritative: what is restored wins over newer copies elsewhere")}</Check>}
      {can("roll_forward") && <Field label={t("Roll forward")}>{(id) => <Select id={id} value={roll} options={ROLLS.map(([key, text]) => [key, t(text)])} onChange={setRoll} />}</Field>}
      {can("roll_forward") && roll === "partial" && <Field label={t("Up to")} hint={t("In the writer's own words.")}>{(id) => <input id={id} required value={point} onInput={(event) => setPoint(event.currentTarget.value)} />}</Field>}
      {can("restore_rename") && <Field label={t("Restore under another name")}>{(id) => <input id={id} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>}
      {lacking.length > 0 && <p class="small quiet">{t("Its writer does not know: {what}.", { what: lacking.join(", ") })}</p>}
    </Part>
  );
}

/** Another writer instance, or only a part of the set that the component is the top of. */
function Parts({ whole, component, params, attempt, patch }: PartProps) {
  const { below } = storedOf(whole, component);
  const instances = (whole.writers ?? []).filter((one) => one.class_id === component.class_id);
  const [instance, setInstance] = useState(component.restore_instance_id ?? component.instance_id);
  const [part, setPart] = useState(below[0] ? JSON.stringify([below[0].logical_path, below[0].name]) : "");
  const add = (): Promise<unknown> => {
    const [logical_path, name] = JSON.parse(part) as [string, string];
    return call("post", "/sessions/{session_id}/components/{component_id}/subcomponents", { params, body: { logical_path, name } });
  };
  return (
    <>
      {instances.length > 1 && (
        <Part title={t("Which writer restores it")} why={reason("select", whole)} button={t("Select with this writer")} onSubmit={() => void patch({ selected: true, instance_id: instance })}>
          <Field label={t("Writer")}>{(id) => <Select id={id} value={instance} options={instances.map((one) => [one.instance_id, one.instance_name || one.name])} onChange={setInstance} />}</Field>
        </Part>
      )}
      {below.length > 0 && (
        <Part title={t("Only parts of it")} why={reason("restoreOptions", whole) ?? (component.selected ? null : "Select the component first.")} button={t("Add this part")} onSubmit={() => void attempt(t("Added."), add)}>
          <p class="small quiet">{component.subcomponents?.length ? t("Only these come back: {parts}.", { parts: component.subcomponents.map(fullPath).join(", ") }) : t("All of it comes back until a part is named here.")}</p>
          <Field label={t("Part")}>{(id) => <Select id={id} value={part} options={below.map((one) => [JSON.stringify([one.logical_path, one.name]), fullPath(one)])} onChange={setPart} />}</Field>
        </Part>
      )}
    </>
  );
}

const setKey = (set: FileSet): string => JSON.stringify([set.path, set.spec, set.recursive]);
const setName = (set: { path: string; spec: string; recursive: boolean }): string => `${set.path}/${set.spec}${set.recursive ? " …" : ""}`;

function Targets({ whole, component, params, attempt }: PartProps) {
  const { schema, sets } = storedOf(whole, component);
  const [chosen, choose] = useState(sets[0] ? setKey(sets[0]) : "");
  const [place, setPlace] = useState("");
  const set = sets.find((one) => setKey(one) === chosen);
  if (!set) return null;
  const { path, spec, recursive } = set;
  const early = reason("restoreOptions", whole);
  const late = reason("fileStatus", whole);
  const used = [...(component.new_targets ?? []).map((one) => ({ from: one, to: one.new_path })), ...(component.alternate_location_mappings ?? []).map((one) => ({ from: one, to: one.alternate_path }))];
  const why = !late ? null : early ?? (schema.includes("new_target") ? null : "Its writer does not know new targets (backup_schema new_target).");
  const add = (): Promise<unknown> =>
    late
      ? call("post", "/sessions/{session_id}/components/{component_id}/new-targets", { params, body: { path, spec, recursive, new_path: place } })
      : call("post", "/sessions/{session_id}/components/{component_id}/alternate-locations", { params, body: { path, spec, recursive, alternate_path: place } });
  return (
    <Part title={late ? t("Restore elsewhere") : t("Restored elsewhere by hand")} why={why} button={late ? t("Add this target") : t("Record this place")} onSubmit={() => void attempt(t("Added."), add)}>
      {used.length > 0 && <ul class="plain-list">{used.map((one) => <li key={setName(one.from) + one.to}><code class="small">{setName(one.from)} → {one.to}</code></li>)}</ul>}
      <Field label={t("File set")}>{(id) => <Select id={id} value={chosen} options={sets.map((one) => [setKey(one), setName(one)])} onChange={choose} />}</Field>
      <Field label={t("Directory")} hint={late ? t("Beneath one of the configured restore.roots, apart from where the component lives.") : t("Its writer is told in PostRestore. Restore files records what it does by itself.")}>
        {(id) => <input id={id} required placeholder="/srv/restored/app" value={place} onInput={(event) => setPlace(event.currentTarget.value)} />}
      </Field>
    </Part>
  );
}

const STATUSES = [["all", "all files are back"], ["none", "nothing was restored"], ["failed", "some files are back, not all"]] as const;

/** For a requester that brings the files back by itself. */
function Outcome({ whole, component, patch }: PartProps) {
  const [status, setStatus] = useState<(typeof STATUSES)[number][0]>("all");
  const [ranges, setRanges] = useState("");
  const [at, setAt] = useState("0");
  const partial = component.partial_files ?? [];
  return (
    <>
      {partial.length > 0 && (
        <Part title={t("Ranges of partial files")} why={reason("ranges", whole)} button={t("Save")} onSubmit={() => void patch({ ranges_file_path: { partial_file: Number(at), path: ranges } })}>
          <Field label={t("Partial file")}>{(id) => <Select id={id} value={at} options={partial.map((one, i) => [String(i), one.path])} onChange={setAt} />}</Field>
          <Field label={t("Ranges file")}>{(id) => <input id={id} required placeholder="/srv/restored/ranges" value={ranges} onInput={(event) => setRanges(event.currentTarget.value)} />}</Field>
        </Part>
      )}
      <Part title={t("What became of the files")} why={reason("fileStatus", whole)} button={t("Save")} onSubmit={() => void patch({ file_restore_status: status })}>
        <Field label={t("Status")} hint={t("Restore files says so by itself: only for files that were brought back by hand.")}>{(id) => <Select id={id} value={status} options={STATUSES.map(([key, text]) => [key, t(text)])} onChange={(value) => setStatus(value as typeof status)} />}</Field>
      </Part>
    </>
  );
}
