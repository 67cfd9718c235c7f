// Sessions: the list, and one with its writers, its quiesce timeline and every verb.
import { useState } from "preact/hooks";
import { ApiError, call, get, login } from "../api/client";
import type { Component, FreezeWindow, Job, Session, SessionState, SessionWriter, WriterStatus } from "../api/types";
import { t, tn } from "../i18n";
import { can, ofRole } from "../model/can";
import type { Facts as VerbFacts } from "../model/verbs";
import { ended, GradeBadge, JobBadge, pending, SESSION_STATES, SessionBadge } from "../model/states";
import { now } from "../state/clock";
import { useData } from "../state/data";
import { frozen, progressOf } from "../state/live";
import { useList } from "../state/list";
import { filter, go, route } from "../state/route";
import { Badge, Button, Check, Choice, CopyButton, Curl, curl, Dialog, Empty, Facts, Field, Head, Id, Link, Loading, Panel, Sentinel, Time, Trouble } from "../ui/basics";
import { absolute, coarse, phaseName, phrase, shortId, span, words } from "../ui/format";
import { FrozenPanel } from "../ui/frozen";
import { Icon, type IconName } from "../ui/icon";
import { Timeline } from "../ui/timeline";
import { ComponentDialog } from "./component";
import { contextOptions, failureOptions, Select, type Context } from "./forms";
import { Verbs } from "./verbs";

export function Sessions({ path }: { path: string[] }) {
  return path[0] ? <OneSession id={path[0]} /> : <SessionList />;
}

function SessionList() {
  const { state = "", kind = "", label = "" } = route.value.query;
  const [making, make] = useState(false);
  const list = useList<Session>(
    `sessions/${state}/${kind}/${label}`,
    async (cursor) => get("/sessions", { query: { limit: 50, cursor, state: (state || undefined) as SessionState | undefined, kind: kind || undefined, label: label || undefined } as never }),
    4000,
    ["sessions"],
    { is: (one) => !ended(one.state), read: (id) => get("/sessions/{session_id}", { params: { session_id: id } }) },
  );
  const filtered = Boolean(state || kind || label);
  return (
    <>
      <Head title={t("Sessions")} lead={<span>{t("One session is one backup, or one restore, verb by verb.")}</span>}>
        {can("sessionCreate") && <Button icon="plus" onClick={() => make(true)}>{t("New session")}</Button>}
      </Head>
      <div class="filters">
        <Choice label={t("State")} value={state} options={[["", t("any")], ...SESSION_STATES.map((one): [string, string] => [one, t(words(one))])]} onChange={(value) => filter({ state: value })} />
        <Choice label={t("Kind")} value={kind} options={[["", t("any")], ["backup", t("backup")], ["restore", t("restore")]]} onChange={(value) => filter({ kind: value })} />
        {label && <Button small kind="ghost" icon="close" onClick={() => filter({ label: null })}>{t("Label {label}", { label })}</Button>}
      </div>
      {list.error && list.error.status !== 0 && <Trouble error={list.error} />}
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        filtered ? (
          <Empty icon="sessions" title={t("No session matches")}>
            <Button onClick={() => filter({ state: null, kind: null, label: null })}>{t("Show all sessions")}</Button>
          </Empty>
        ) : (
          <Empty icon="sessions" title={t("No sessions yet")}>
            <p>{t("A session leads writers, snapshots and the copy through one backup. New backup makes one by itself; here it goes verb by verb:")}</p>
            <Curl verb="POST" path="/sessions" body={{ kind: "backup", label: "nightly" }} />
          </Empty>
        )
      ) : (
        <div class="panel flush sticky">
          <table>
            <caption class="hidden">{t("Sessions, newest first")}</caption>
            <thead>
              <tr>
                <th scope="col">{t("Label")}</th>
                <th scope="col">{t("State")}</th>
                <th scope="col" class="p2">{t("Kind")}</th>
                <th scope="col" class="p3">{t("Context")}</th>
                <th scope="col">{t("Made")}</th>
                <th scope="col" class="p3">{t("Principal")}</th>
              </tr>
            </thead>
            <tbody>
              {list.items.map((session) => (
                <tr key={session.id}>
                  <th scope="row"><Link to={["sessions", session.id]}>{session.label || shortId(session.id)}</Link></th>
                  <td>
                    <SessionBadge state={session.state} />
                    {(session.frozen ?? session.hold) && <Badge tone="ice" icon="frozen">{t("frozen")}</Badge>}
                    {session.reason && <div class="small quiet">{phrase(session.reason)}</div>}
                  </td>
                  <td class="p2">{t(session.kind)}</td>
                  <td class="p3">{phrase(session.context)}</td>
                  <td><Time at={session.created_at} /></td>
                  <td class="p3 quiet">{session.owner}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {list.more ? <Sentinel key={list.items.length} onSeen={list.loadMore} /> : <p class="small quiet foot">{tn(list.items.length, "One session.", "{n} sessions.")}</p>}
        </div>
      )}
      {making && <NewSession onClose={() => make(false)} />}
    </>
  );
}

const FROM_DOCUMENT = "document";

function NewSession({ onClose }: { onClose: () => void }) {
  const restorer = ofRole(login.value?.role, "restorer");
  const operator = ofRole(login.value?.role, "operator");
  const [kind, setKind] = useState<"backup" | "restore">(operator ? "backup" : "restore");
  const [label, setLabel] = useState("");
  const [context, setContext] = useState<Context>("backup");
  const [failure, setFailure] = useState("fail");
  const [lease, setLease] = useState("");
  const [document, setDocument] = useState("");
  const [accept, setAccept] = useState(false);
  const [backup, setBackup] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const backups = useData("backups/few", async () => (await get("/backups", { query: { limit: 50 } })).items, 30_000, ["backups"]);
  const create = async (): Promise<void> => {
    try {
      // the context is left open where it is the usual one: SetContext may still choose it, with attributes
      const what =
        kind === "backup"
          ? { ...(context !== "backup" && { context }), ...(failure !== "fail" && { writer_failure: "report" as const }) }
          : { ...(backup === FROM_DOCUMENT ? { document: JSON.parse(document) as Record<string, unknown> } : { backup_id: backup || (backups.value?.[0]?.id ?? "") }), ...(accept && { accept_incomplete: true }) };
      const session = await call("post", "/sessions", { body: { kind, ...what, ...(label && { label }), ...(lease && { lease_seconds: Number(lease) }) } });
      go(["sessions", (session as Session).id]);
    } catch (cause) {
      setError(cause instanceof ApiError ? cause : new ApiError(0, { title: t("The document is no JSON."), detail: String(cause) }, ""));
    }
  };
  return (
    <Dialog title={t("New session")} onClose={onClose}>
      <Field label={t("Kind")}>
        {(id) => (
          <select id={id} value={kind} onChange={(event) => setKind(event.currentTarget.value as "backup" | "restore")}>
            {operator && <option value="backup">{t("backup")}</option>}
            {restorer && <option value="restore">{t("restore")}</option>}
          </select>
        )}
      </Field>
      {kind === "backup" ? (
        <Field label={t("Context")} hint={t("What the snapshots are for; the others than backup leave them behind.")}>
          {(id) => <Select id={id} value={context} options={contextOptions()} onChange={(value) => setContext(value as Context)} />}
        </Field>
      ) : (
        <>
          <Field label={t("Backup")}>
            {(id) => <Select id={id} value={backup} options={[...(backups.value ?? []).map((one): [string, string] => [one.id, `${one.label ?? t("without a label")}, ${absolute(Date.parse(one.created_at))}${one.complete ? "" : `, ${t("incomplete")}`}`]), [FROM_DOCUMENT, t("from a document …")]]} onChange={setBackup} />}
          </Field>
          {backup === FROM_DOCUMENT && (
            <Field label={t("The Backup Components Document")} hint={t("As a session's page or the repository gives it, in JSON.")}>
              {(id) => <textarea id={id} rows={6} spellcheck={false} value={document} onInput={(event) => setDocument(event.currentTarget.value)} />}
            </Field>
          )}
          <Check checked={accept} onChange={setAccept}>{t("Accept that this backup is not complete")}</Check>
        </>
      )}
      <Field label={t("Label")}>
        {(id) => <input id={id} maxLength={256} value={label} onInput={(event) => setLabel(event.currentTarget.value)} />}
      </Field>
      <details>
        <summary>{t("More")}</summary>
        {kind === "backup" && <Field label={t("When a writer fails")}>{(id) => <Select id={id} value={failure} options={failureOptions()} onChange={setFailure} />}</Field>}
        <Field label={t("Lease in seconds")} hint={t("Without a call for so long the session is aborted and everything is let go. Empty: as long as the configuration allows.")}>
          {(id) => <input id={id} type="number" min={5} max={86400} value={lease} onInput={(event) => setLease(event.currentTarget.value)} />}
        </Field>
      </details>
      <Trouble error={error} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Back")}</Button>
        <Button kind="main" onClick={create}>{t("Make the session")}</Button>
      </div>
    </Dialog>
  );
}

/** A writer as the document keeps it. */
export type StoredWriter = Pick<SessionWriter, "instance_id" | "name"> & Partial<SessionWriter>;

export interface Whole {
  session: Session;
  components: Component[];
  writers: SessionWriter[] | null;
  status: WriterStatus[] | null;
  document: { writers?: StoredWriter[]; writer_status?: WriterStatus[] | null; freeze?: FreezeWindow | null; volumes?: { volume: string; provider: string }[]; snapshots?: { id: string; volume: string; provider: string }[]; consistency?: { grade: string } } | null;
  jobs: Job[];
}

export const factsOf = ({ session, components }: Pick<Whole, "session" | "components">): VerbFacts => ({
  session,
  gathered: session.state !== "initialized",
  snapshotNeeded: components.length > 0 || Boolean(session.snapshot_set_id),
});

async function whole(id: string): Promise<Whole> {
  const params = { session_id: id };
  const [session, components, jobs] = await Promise.all([
    get("/sessions/{session_id}", { params }),
    get("/sessions/{session_id}/components", { params }),
    get("/jobs", { query: { session: id, limit: 50 } }),
  ]);
  // only what this state has: what it has not would be answered with 409
  const open = session.state === "identified" || session.state === "set_open";
  const saved = session.kind === "restore" || (session.state !== "initialized" && !open);
  const [writers, found] = await Promise.all([
    open ? get("/sessions/{session_id}/writers", { params }) : null,
    saved ? get("/sessions/{session_id}/document", { params }) : null,
  ]);
  const document = found as Whole["document"];
  const told = jobs.items.some((job) => job.operation === "GatherWriterStatus" && job.state === "succeeded");
  const known = (writers?.items ?? []).map((one): WriterStatus => ({ instance_id: one.instance_id, class_id: one.class_id, name: one.instance_name || one.name, state: "VSS_WS_STABLE", failure: "S_OK", code: "0x00000000", application_code: null, application_message: null }));
  const status = document?.writer_status ?? (told ? (await get("/sessions/{session_id}/writer-status", { params })).items : known.length ? known : null);
  return { session, components: components.items, writers: writers?.items ?? null, status, document, jobs: jobs.items };
}

/** In words: how many are left out, and by which rule. */
function filterOf({ writer_filter: filter }: Session): string | null {
  if (!filter) return null;
  const said = [
    filter.disable_instances?.length && tn(filter.disable_instances.length, "one writer", "{n} writers"),
    filter.disable?.length && tn(filter.disable.length, "one class", "{n} classes"),
    filter.enable?.length && tn(filter.enable.length, "all but one class", "all but {n} classes"),
  ];
  return said.filter(Boolean).join(", ") || null;
}

function OneSession({ id }: { id: string }) {
  const data = useData<Whole>(`session/${id}`, () => whole(id), 1200, [`session:${id}`]);
  const back = { to: ["sessions"], name: t("Sessions") };
  const found = data.value;
  if (!found) {
    return (
      <>
        <Head title={t("Session")} back={back} />
        {data.error ? <Trouble error={data.error} /> : <Loading />}
      </>
    );
  }
  const { session, jobs, document: saved } = found;
  const window = saved?.freeze ?? null;
  const job = jobs.find((one) => one.id === session.pending_job) ?? jobs.find((one) => pending(one.state));
  return (
    <>
      <Head
        title={session.label || t("Session {id}", { id: shortId(session.id) })}
        back={back}
        lead={
          <>
            <SessionBadge state={session.state} />
            <span>{t(session.kind)}</span>
            {session.backup_state && <span>{t(String((session.backup_state as { type?: string }).type ?? ""))}</span>}
            <Time at={session.created_at} />
            {session.reason && <span>{t("reason")}: {phrase(session.reason)}</span>}
          </>
        }
      >
        <CopyButton text={curl("GET", `/sessions/${session.id}`)}>{t("Copy as curl")}</CopyButton>
      </Head>
      {data.error && data.error.status !== 0 && <Trouble error={data.error} />}
      <FrozenPanel sessions={[session]} />
      {job && (
        <Panel title={t("In hand")}>
          <Link to={["jobs", job.id]} class="row-link">
            <span><strong>{job.operation}</strong> <span class="quiet">{phaseName(progressOf(job)?.phase)}</span></span>
            <span class="num">{coarse(now.value - Date.parse(job.started_at ?? job.created_at))}</span>
            <JobBadge state={job.state} />
          </Link>
        </Panel>
      )}
      {!ended(session.state) && <Verbs whole={found} refresh={data.refresh} />}
      {window && (
        <Panel title={t("Quiesce timeline")} aside={<span class="small quiet"><Time at={window.started_at} /></span>}>
          <Timeline window={window} components={found.components} />
        </Panel>
      )}
      {found.status && found.status.length > 0 && <WriterMatrix whole={found} />}
      {found.components.length > 0 && <Components whole={found} refresh={data.refresh} />}
      {saved?.volumes && saved.volumes.length > 0 && (
        <Panel title={t("Volumes")} flush>
          <table>
            <thead><tr><th scope="col">{t("Volume")}</th><th scope="col">{t("Provider")}</th></tr></thead>
            <tbody>{saved.volumes.map((one) => <tr key={one.volume}><td><code>{one.volume}</code></td><td>{one.provider}</td></tr>)}</tbody>
          </table>
        </Panel>
      )}
      {jobs.length > 0 && (
        <Panel title={t("Jobs of this session")} flush>
          <table>
            <tbody>
              {jobs.map((one) => (
                <tr key={one.id}>
                  <th scope="row"><Link to={["jobs", one.id]}>{one.operation}</Link></th>
                  <td><JobBadge state={one.state} /></td>
                  <td class="num">{one.started_at && one.finished_at ? span(Date.parse(one.finished_at) - Date.parse(one.started_at)) : "–"}</td>
                  <td class="p2"><Time at={one.created_at} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </Panel>
      )}
      {ended(session.state) && <Verbs whole={found} refresh={data.refresh} />}
      <Panel title={t("Facts")}>
        <Facts
          items={[
            [t("Context"), [session.context, ...(session.attributes ?? [])].map(phrase).join(", ")],
            [t("Writers left out"), filterOf(session)],
            [t("Files come back"), session.restore_state && phrase(session.restore_state.type)],
            [t("A writer's failure"), session.writer_failure === "fail" ? t("fails the job") : t("is reported")],
            [t("Principal"), session.owner],
            [t("Lease until"), session.lease_expires_at && <Time at={session.lease_expires_at} />],
            [t("Backup"), session.backup_id && <Link to={["backups", session.backup_id]}>{shortId(session.backup_id)}</Link>],
            [t("Snapshot set"), session.snapshot_set_id && <Link to={["snapshots"]} query={{ session: session.id }}>{shortId(session.snapshot_set_id)}</Link>],
            [t("Changed"), <Time at={session.updated_at} />],
            [t("Id"), <Id id={session.id} />],
          ]}
        />
      </Panel>
      {saved && (
        <Panel title={t("Document")}>
          <details>
            <summary>{t("The Backup Components Document")}</summary>
            <CopyButton text={JSON.stringify(saved, null, 2)}>{t("Copy")}</CopyButton>
            <pre class="document" tabIndex={0}>{JSON.stringify(saved, null, 2)}</pre>
          </details>
        </Panel>
      )}
    </>
  );
}

// --- writer by phase -------------------------------------------------------------------------------------------

const WRITER_PHASES = ["Identify", "PrepareForBackup", "PrepareSnapshot", "Freeze", "Thaw", "PostSnapshot", "BackupComplete"];

/** The phase in which the job in hand is with all writers; null where none is. */
export function livePhase(jobs: Pick<Job, "state" | "operation" | "progress">[]): number | null {
  const PHASE: Record<string, number> = { gather_metadata: 0, prepare: 1, prepare_snapshot: 2, snapshot: 2, freeze: 3, hold: 3, post_snapshot: 5, complete: 6 };
  const OPERATION: Record<string, number> = { GatherWriterMetadata: 0, PrepareForBackup: 1, DoSnapshotSet: 2, BackupComplete: 6 };
  const job = jobs.find((one) => pending(one.state));
  return job ? (PHASE[job.progress?.phase ?? ""] ?? OPERATION[job.operation] ?? null) : null;
}

const FREEZE = 3;

/** Who is frozen is known by name, whatever the job says: POST /backups has one phase, snapshot, for all that comes between prepare and copy. */
export const phaseNow = (name: string, held: { writers: string[] } | null | undefined, live: number | null): number | null => (held?.writers.includes(name) ? FREEZE : live);

/** How far a writer has come by its state, and whether it failed there: index of the phase that it is in; past the last when it is through. */
export function phaseOf(state: string, session: SessionState, live: number | null = null): { at: number; failed: boolean } {
  const FAILED: Record<string, number> = {
    VSS_WS_FAILED_AT_IDENTIFY: 0, VSS_WS_FAILED_AT_PREPARE_BACKUP: 1, VSS_WS_FAILED_AT_PREPARE_SNAPSHOT: 2, VSS_WS_FAILED_AT_FREEZE: 3,
    VSS_WS_FAILED_AT_THAW: 4, VSS_WS_FAILED_AT_POST_SNAPSHOT: 5, VSS_WS_FAILED_AT_BACKUP_COMPLETE: 6,
  };
  const WAITING: Record<string, number> = {
    VSS_WS_WAITING_FOR_FREEZE: 3, VSS_WS_WAITING_FOR_THAW: 4, VSS_WS_WAITING_FOR_POST_SNAPSHOT: 5, VSS_WS_WAITING_FOR_BACKUP_COMPLETE: 6,
  };
  if (state in FAILED) return { at: FAILED[state]!, failed: true };
  if (live !== null) return { at: live, failed: false };
  if (session === "prepared") return { at: Math.max(2, state === "VSS_WS_WAITING_FOR_BACKUP_COMPLETE" ? 2 : (WAITING[state] ?? 2)), failed: false };
  if (state in WAITING) return { at: WAITING[state]!, failed: false };
  const through: Partial<Record<SessionState, number>> = { identified: 1, set_open: 1, snapshotted: 6, completed: 7, aborted: 1, snapshot_failed: 3 };
  return { at: through[session] ?? 1, failed: false };
}

/** Only who has a component in the backup is asked for more than what it offers; without components all of them, and in some contexts nobody. */
export function takesPart(writer: { instance_id: string }, { session, components }: Pick<Whole, "session" | "components">): boolean {
  return session.backup_state?.component_mode === false || components.some((one) => one.instance_id === writer.instance_id);
}

function WriterMatrix({ whole }: { whole: Whole }) {
  const { session, status, jobs } = whole;
  if (session.kind === "restore") {
    return (
      <Panel title={t("Writers")} flush>
        <table>
          <tbody>
            {status!.map((writer) => (
              <tr key={writer.instance_id}><th scope="row">{writer.name}</th><td><code class="small">{writer.state}</code></td><td><WriterFailure writer={writer} /></td></tr>
            ))}
          </tbody>
        </table>
      </Panel>
    );
  }
  const moving = jobs.some((job) => pending(job.state));
  const live = livePhase(jobs.map((job) => ({ ...job, progress: progressOf(job) ?? job.progress })));
  const held = frozen.value.get(session.id) ?? session.frozen;
  return (
    <Panel title={t("Writers by phase")} flush>
      <div class="scroll" tabIndex={0} role="group" aria-label={t("Writers by phase")}>
        <table class="matrix">
          <thead>
            <tr>
              <th scope="col">{t("Writer")}</th>
              {WRITER_PHASES.map((phase) => <th scope="col" key={phase}>{phase}</th>)}
            </tr>
          </thead>
          <tbody>
            {status!.map((writer) => {
              const { at, failed } = phaseOf(writer.state, session.state, phaseNow(writer.name, held, live));
              return (
                <tr key={writer.instance_id}>
                  <th scope="row">{writer.name}<div class="small">{takesPart(writer, whole) ? null : <span class="quiet">{t("takes no part")}</span>} <WriterFailure writer={writer} /></div></th>
                  {WRITER_PHASES.map((phase, i) => {
                    const state = i > 0 && !takesPart(writer, whole) ? "out" : i < at ? "done" : i > at || (i === at && !failed && (ended(session.state) || !moving)) ? "todo" : failed ? "bad" : "here";
                    const icon: IconName = { done: "ok", todo: "none", here: "running", bad: "failed", out: "none" }[state] as IconName;
                    return (
                      <td key={phase} class={state}>
                        {state === "out" ? <span aria-hidden="true">–</span> : <Icon name={icon} class={state === "here" ? "spin" : ""} />}
                        <span class="hidden">{t({ done: "done", todo: "not yet", here: "now", bad: "failed", out: "takes no part" }[state])}</span>
                      </td>
                    );
                  })}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

function WriterFailure({ writer }: { writer: WriterStatus }) {
  if (writer.failure === "S_OK") return null;
  return <span class="quiet"><code>{writer.failure}</code> {writer.application_message}</span>;
}

// --- components ------------------------------------------------------------------------------------------------

function Components({ whole: all, refresh }: { whole: Whole; refresh: () => Promise<void> }) {
  const { session, components } = all;
  const [shown, show] = useState<string | null>(null);
  const opened = components.find((one) => one.id === shown);
  const mine = !ended(session.state) && can("componentPatch") && ofRole(login.value?.role, session.kind === "backup" ? "operator" : "restorer");
  const [error, setError] = useState<ApiError | null>(null);
  const backup = session.kind === "backup";
  const settable = mine && session.state === (backup ? "snapshotted" : "identified") && !session.pending_job;
  const set = async (component: Component, value: boolean): Promise<void> => {
    try {
      await call("patch", "/sessions/{session_id}/components/{component_id}", { params: { session_id: session.id, component_id: component.id }, body: backup ? { succeeded: value } : ({ selected: value } as never) });
      setError(null);
    } catch (cause) {
      setError(cause as ApiError);
    }
    await refresh();
  };
  return (
    <Panel title={t("Components")} flush>
      <Trouble error={error} />
      <table>
        <thead>
          <tr>
            <th scope="col">{t("Component")}</th>
            <th scope="col">{backup ? t("Succeeded") : t("Selected")}</th>
            {backup ? <th scope="col" class="p2">{t("Grade")}</th> : <th scope="col">{t("Files")}</th>}
            <th scope="col" class="p3">{t("Stamp")}</th>
            {mine && <th scope="col"><span class="hidden">{t("Actions")}</span></th>}
          </tr>
        </thead>
        <tbody>
          {components.map((one) => {
            const on = backup ? one.succeeded === true : one.selected === true;
            const name = `${one.writer} / ${one.logical_path ? `${one.logical_path}\\` : ""}${one.name}`;
            return (
              <tr key={one.id}>
                <th scope="row">
                  {name}
                  <div class="small quiet">{one.type}{one.failure && <> · <code>{one.failure}</code> {one.application_message}</>}</div>
                </th>
                <td>
                  {settable ? (
                    <label class="check"><input type="checkbox" checked={on} onChange={(event) => void set(one, event.currentTarget.checked)} aria-label={`${backup ? t("Succeeded") : t("Selected")}: ${name}`} /></label>
                  ) : on ? <Badge tone="ok" icon="ok">{t("yes")}</Badge> : <Badge tone="off" icon="none">{one.succeeded === null && backup ? t("not said") : t("no")}</Badge>}
                </td>
                {backup ? <td class="p2"><GradeBadge grade={one.grade} /><div class="small quiet">{one.grade_reason}</div></td> : <td>{one.file_restore_status ?? "–"}</td>}
                <td class="p3"><code class="small">{one.backup_stamp ?? "–"}</code></td>
                {mine && <td class="actions-cell"><Button small kind="ghost" label={t("Options of {name}", { name })} onClick={() => show(one.id)}>{t("Options")}</Button></td>}
              </tr>
            );
          })}
        </tbody>
      </table>
      {opened && <ComponentDialog whole={all} component={opened} onClose={() => show(null)} refresh={refresh} />}
    </Panel>
  );
}
