// Every verb of a session: those that its state allows, and the others with the reason why not.
import { useState } from "preact/hooks";
import { type ApiError, call } from "../api/client";
import type { Session } from "../api/types";
import { t } from "../i18n";
import { can } from "../model/can";
import { ended } from "../model/states";
import { VERBS, whyNot, type VerbName } from "../model/verbs";
import { invalidate } from "../state/data";
import { go } from "../state/route";
import { Button, Dialog, Panel, Trouble } from "../ui/basics";
import { FORMS } from "./forms";
import { factsOf, type Whole } from "./sessions";

interface Step {
  verb: VerbName;
  title: string;
  /** Asked for first. */
  form?: keyof typeof FORMS;
  run?: (session: string) => Promise<unknown>;
  /** Where the verb is possible, and this form of it is not yet. */
  not?: (whole: Whole) => string | null;
}

const post = (path: "metadata" | "prepare" | "snapshot" | "complete" | "status" | "pre-restore" | "post-restore" | "abort" | "renew" | "snapshot-set" | "snapshot-set/components") => (session: string) =>
  call("post", `/sessions/{session_id}/${path}`, { params: { session_id: session } });

/** What is said of the session as a whole, where its default does not do; and then the verbs in the order of a session's life. */
const SETTINGS: Record<"backup" | "restore", Step[]> = {
  backup: [
    { verb: "context", title: "Set context", form: "context" },
    { verb: "writerFilter", title: "Filter writers", form: "filter" },
    { verb: "backupState", title: "Set type", form: "type" },
  ],
  restore: [
    { verb: "writerFilter", title: "Filter writers", form: "filter" },
    { verb: "restoreState", title: "Set restore state", form: "restoreState" },
  ],
};
const LIFE: Record<"backup" | "restore", Step[]> = {
  backup: [
    { verb: "metadata", title: "Gather writers", run: post("metadata") },
    { verb: "addComponent", title: "Add component", form: "component" },
    { verb: "startSet", title: "Start snapshot set", run: post("snapshot-set") },
    { verb: "addVolume", title: "Add volume", form: "volume" },
    {
      verb: "addComponent", title: "Add what lies on them", run: post("snapshot-set/components"),
      not: ({ session }) => (session.state === "set_open" ? null : "Add the volumes first: every component that keeps files on them is added then."),
    },
    { verb: "prepare", title: "Prepare", run: post("prepare") },
    { verb: "snapshot", title: "Take snapshot", run: post("snapshot") },
    { verb: "copy", title: "Copy", form: "repository" },
    { verb: "complete", title: "Complete", run: post("complete") },
    { verb: "status", title: "Gather status", run: post("status") },
  ],
  restore: [
    { verb: "metadata", title: "Gather writers", run: post("metadata") },
    { verb: "preRestore", title: "PreRestore", run: post("pre-restore") },
    { verb: "restoreFiles", title: "Restore files", form: "restoreFiles" },
    { verb: "postRestore", title: "PostRestore", run: post("post-restore") },
    { verb: "status", title: "Gather status", run: post("status") },
  ],
};
/** What comes next is the first of these that is possible, and not done yet. */
const NEXT: VerbName[] = ["metadata", "backupState", "addComponent", "startSet", "prepare", "snapshot", "copy", "complete", "preRestore", "restoreFiles", "postRestore"];

export function nextOf({ session, components, jobs }: Pick<Whole, "session" | "components" | "jobs">, possible: (verb: VerbName) => boolean): VerbName | undefined {
  const ended = (operation: string): boolean => jobs.some((job) => job.operation === operation && job.state === "succeeded");
  const done: Partial<Record<VerbName, boolean>> = {
    metadata: session.state !== "initialized",
    backupState: session.state === "initialized" || Boolean(session.backup_state),
    addComponent: components.length > 0 || session.state !== "identified",
    copy: ended("Copy"),
    restoreFiles: ended("RestoreFiles"),
  };
  return NEXT.find((verb) => !done[verb] && possible(verb));
}

export function Verbs({ whole, refresh }: { whole: Whole; refresh: () => Promise<void> }) {
  const { session } = whole;
  const [error, setError] = useState<ApiError | null>(null);
  const [dialog, open] = useState<Step | null>(null);
  const [confirm, ask] = useState<"abort" | "release" | null>(null);
  const [busy, setBusy] = useState(false);
  const restore = session.kind === "restore";
  if (!can(restore ? "jobRestoreFiles" : "jobSnapshot")) return null;
  const facts = factsOf(whole);
  const attempt = async (run: () => Promise<unknown>, gone = false): Promise<void> => {
    setBusy(true);
    try {
      await run();
      if (gone) {
        go(["sessions"]);
        return; // nothing is left to be looked at
      }
      setError(null);
    } catch (cause) {
      setError(cause as ApiError);
    }
    await refresh();
    setBusy(false);
    invalidate(["jobs", "sessions"]);
  };
  const judged = (step: Step): Step & { why: string | null } => ({ ...step, why: whyNot(step.verb, facts) ?? step.not?.(whole) ?? (busy ? "The call before is on its way." : null) });
  const settings = SETTINGS[session.kind].map(judged);
  const steps = LIFE[session.kind].map(judged);
  const next = nextOf(whole, (verb) => [...settings, ...steps].some((step) => step.verb === verb && !step.not && !step.why));
  const closed = [...settings, ...steps].filter((step) => step.why);
  const button = (step: Step & { why: string | null }) => (
    <Button key={step.title} kind={step.verb === next && !step.not ? "main" : "plain"} why={step.why && t(step.why)} onClick={() => (step.form ? open(step) : attempt(() => step.run!(session.id)))}>{t(step.title)}</Button>
  );
  const Form = dialog?.form && FORMS[dialog.form];
  const abortWhy = restore ? null : whyNot("abort", facts);
  return (
    <Panel title={t("Verbs")}>
      {!ended(session.state) && <div class="verbs settings" role="group" aria-label={t("Settings")}>{settings.map(button)}</div>}
      <div class="verbs">
        {steps.map(button)}
        {!restore && <Button kind="danger" why={abortWhy && t(abortWhy)} onClick={() => ask("abort")}>{t("Abort")}</Button>}
        {!ended(session.state) && <Button why={session.lease_expires_at ? null : t("The lease is paused while a job is pending.")} onClick={() => attempt(() => post("renew")(session.id))}>{t("Renew lease")}</Button>}
        <Button kind="ghost" icon="trash" onClick={() => ask("release")}>{t("Release")}</Button>
      </div>
      {closed.length > 0 && (
        <details class="why-list">
          <summary>{t("Why some cannot be used now")}</summary>
          <dl>{closed.map((step) => [<dt key={step.title}>{t(step.title)}</dt>, <dd key={`${step.title}-why`}>{t(step.why!)} <code>{VERBS[step.verb].name}</code></dd>])}</dl>
        </details>
      )}
      <Trouble error={error} />
      {Form && <Form title={t(dialog.title)} whole={whole} onClose={() => open(null)} attempt={attempt} />}
      {confirm && <Confirm what={confirm} session={session} onClose={() => ask(null)} attempt={attempt} />}
    </Panel>
  );
}

function Confirm({ what, session, onClose, attempt }: { what: "abort" | "release"; session: Session; onClose: () => void; attempt: (run: () => Promise<unknown>, gone?: boolean) => Promise<void> }) {
  const params = { session_id: session.id };
  const act = async (): Promise<void> => {
    onClose();
    if (what === "abort") return attempt(() => post("abort")(session.id));
    await attempt(() => call("delete", "/sessions/{session_id}", { params }), true);
  };
  return (
    <Dialog title={what === "abort" ? t("Abort the session?") : t("Release the session?")} onClose={onClose}>
      <ul>
        <li>{t("A pending job is cancelled.")}</li>
        <li>{t("Whatever is frozen is thawed at once.")}</li>
        {what === "abort" ? <li>{t("Snapshots in the making are removed; writers are told, and truncate nothing.")}</li> : <li>{t("Snapshots that are not made to stay are removed, writers end, and the session leaves the list.")}</li>}
        {!ended(session.state) && what === "release" && <li>{t("The session has not ended: releasing it aborts it.")}</li>}
      </ul>
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Back")}</Button>
        <Button kind="danger" onClick={act}>{what === "abort" ? t("Abort the session") : t("Release the session")}</Button>
      </div>
    </Dialog>
  );
}
