// Jobs: the list, and one of them with its progress, its phases, its end, and the way to cancel it.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, call, get } from "../api/client";
import type { Job, JobState } from "../api/types";
import { number, t, tn } from "../i18n";
import { can } from "../model/can";
import { undoes } from "../model/cancel";
import { JOB_STATES, JobBadge, pending } from "../model/states";
import { clock, now } from "../state/clock";
import { invalidate, useData } from "../state/data";
import { progressOf } from "../state/live";
import { useList } from "../state/list";
import { filter, go, route } from "../state/route";
import { Announce, Badge, Button, Choice, CopyButton, Curl, curl, Dialog, Empty, Facts, Head, Id, Link, Loading, Panel, Sentinel, Time, Trouble } from "../ui/basics";
import { bytes, coarse, phaseName, shortId, span } from "../ui/format";
import { Icon, type IconName } from "../ui/icon";
import { Log } from "./log";

const OPERATIONS = [
  "Backup", "GatherWriterMetadata", "PrepareForBackup", "DoSnapshotSet", "Copy", "BackupComplete", "GatherWriterStatus", "PreRestore", "RestoreFiles",
  "PostRestore", "Restore", "Verify", "Scan", "RemoveBackup", "RevertToSnapshot", "Release",
];

/** "idle · nice 10 · 9.5 MiB/s" */
function limitsOf(limits: NonNullable<Job["limits"]>): string {
  const { io_class: ioClass, io_priority: priority, nice, bandwidth_bytes_per_second: rate } = limits;
  const parts = [
    (ioClass ?? priority) !== undefined && `${ioClass ?? "best-effort"}${priority === undefined ? "" : ` ${priority}`}`,
    nice !== undefined && `nice ${nice}`,
    rate !== undefined && `${bytes(rate)}/s`,
  ];
  return parts.filter(Boolean).join(" · ");
}

export function Jobs({ path }: { path: string[] }) {
  return path[0] ? <OneJob id={path[0]} /> : <JobList />;
}

function JobList() {
  const { state = "", operation = "", session = "" } = route.value.query;
  const list = useList<Job>(
    `jobs/${state}/${operation}/${session}`,
    async (cursor) => get("/jobs", { query: { limit: 50, cursor, state: (state || undefined) as JobState | undefined, operation: operation || undefined, session: session || undefined } as never }),
    3000,
    ["jobs"],
    { is: (job) => pending(job.state), read: (id) => get("/jobs/{job_id}", { params: { job_id: id } }) },
  );
  // what has not changed is the same row: of ten thousand only the new ones are drawn
  const drawn = useMemo(() => new WeakMap<Job, preact.VNode>(), []);
  const filtered = Boolean(state || operation || session);
  return (
    <>
      <Head title={t("Jobs")} lead={<span>{t("Every asynchronous operation: what it is at, how it ended, and how to cancel it.")}</span>} />
      <div class="filters">
        <Choice label={t("State")} value={state} options={[["", t("any")], ...JOB_STATES.map((one): [string, string] => [one, t(one)])]} onChange={(value) => filter({ state: value })} />
        <Choice label={t("Operation")} value={operation} options={[["", t("any")], ...OPERATIONS.map((one): [string, string] => [one, one])]} onChange={(value) => filter({ operation: value })} />
        {session && <Button small kind="ghost" icon="close" onClick={() => filter({ session: null })}>{t("Session {id}", { id: shortId(session) })}</Button>}
      </div>
      {list.error && list.error.status !== 0 && <Trouble error={list.error} />}
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        filtered ? (
          <Empty icon="jobs" title={t("No job matches")}>
            <Button onClick={() => filter({ state: null, operation: null, session: null })}>{t("Show all jobs")}</Button>
          </Empty>
        ) : (
          <Empty icon="jobs" title={t("No jobs yet")}>
            <p>{t("A job is an operation that takes its time: a backup, a restore, a check. Begin one here, or with curl:")}</p>
            <Curl verb="POST" path="/backups" body={{ paths: ["/srv/data"], repository: "main" }} />
          </Empty>
        )
      ) : (
        <div class="panel flush sticky">
          <table>
            <caption class="hidden">{t("Jobs, newest first")}</caption>
            <thead>
              <tr>
                <th scope="col">{t("Operation")}</th>
                <th scope="col">{t("State")}</th>
                <th scope="col" class="p2">{t("Progress")}</th>
                <th scope="col">{t("Begun")}</th>
                <th scope="col" class="p2 num">{t("Took")}</th>
                <th scope="col" class="p3">{t("Principal")}</th>
              </tr>
            </thead>
            <tbody>
              {list.items.map((job) => {
                if (!drawn.has(job)) drawn.set(job, <JobRow key={job.id} job={job} />);
                return drawn.get(job);
              })}
            </tbody>
          </table>
          {list.more ? <Sentinel key={list.items.length} onSeen={list.loadMore} /> : <p class="small quiet foot">{tn(list.items.length, "One job.", "{n} jobs.")}</p>}
        </div>
      )}
    </>
  );
}

const took = (job: Job): number | null => {
  if (!job.started_at) return null;
  return (job.finished_at ? Date.parse(job.finished_at) : now.value) - Date.parse(job.started_at);
};

function JobRow({ job }: { job: Job }) {
  const at = pending(job.state) ? progressOf(job) : job.progress;
  const done = at?.bytes_done;
  const total = at?.bytes_total;
  const ms = pending(job.state) ? took(job) : job.started_at && job.finished_at ? Date.parse(job.finished_at) - Date.parse(job.started_at) : null;
  return (
    <tr>
      <th scope="row" class="name"><Link to={["jobs", job.id]}>{job.operation}</Link>{job.label && <div class="small quiet">{job.label}</div>}</th>
      <td>
        <JobBadge state={job.state} />
        {job.error && <div class="small quiet">{job.error.hresult}</div>}
      </td>
      <td class="p2">
        {pending(job.state) ? (
          <>
            {phaseName(at?.phase)}
            {done !== undefined && total !== undefined && total > 0 && <progress max={total} value={done} aria-label={t("Progress of {name}", { name: job.operation })} />}
          </>
        ) : (
          done !== undefined && done >= 0 && <span class="quiet">{bytes(done)}</span>
        )}
      </td>
      <td><Time at={job.created_at} />{ms !== null && <div class="only-narrow small quiet num">{pending(job.state) ? coarse(ms) : span(ms)}</div>}</td>
      <td class="p2 num">{ms === null ? "–" : pending(job.state) ? coarse(ms) : span(ms)}</td>
      <td class="p3 quiet">{(job as { owner?: string }).owner}</td>
    </tr>
  );
}

const WINDOW_MS = 12_000;
/** Progress is told about once a second: who says nothing for so long is slower than he was. */
const STALL_MS = 3000;

/** Bytes a second over the last samples that the page saw, until now where no new one comes; null until there are two of them a second apart. */
export function speedOf(samples: { at: number; done: number }[], at: number): number | null {
  const last = samples[samples.length - 1];
  const first = samples.find((one) => one.at > at - WINDOW_MS) ?? last;
  if (!first || !last || samples.length < 2) return null;
  const until = at - last.at > STALL_MS ? at : last.at;
  if (until - first.at < 900) return null;
  return Math.max(0, ((last.done - first.done) * 1000) / (until - first.at));
}

function useSpeed(job: Job | undefined): number | null {
  const samples = useRef<{ at: number; done: number }[]>([]);
  const done = job?.progress?.bytes_done;
  const phase = job?.progress?.phase;
  const before = useRef(phase);
  useEffect(() => {
    if (before.current !== phase) samples.current = [];
    before.current = phase;
    if (done === undefined || done < 0) return;
    samples.current = [...samples.current.filter((one) => one.at > clock() - WINDOW_MS), { at: clock(), done }];
  }, [done, phase]);
  return speedOf(samples.current, now.value);
}

/** The phases of operations that have more than one, in order: a unit test holds them against daemon/engine/backup/backup.c and daemon/worker. */
export const PHASES: Readonly<Record<string, readonly string[]>> = {
  Backup: ["gather_metadata", "choose_components", "plan", "wait_for_slot", "prepare", "snapshot", "copy", "complete", "seal"],
  DoSnapshotSet: ["prepare_snapshot", "freeze", "post_snapshot"],
  Restore: ["restore", "publish"],
};

function Phases({ job }: { job: Job }) {
  const phases = PHASES[job.operation]!;
  const at = phases.indexOf(job.progress?.phase ?? "");
  // of a job that the service's own end interrupted nobody kept it: better no list than one that says "not yet" of what was done
  if (at < 0 && !pending(job.state) && job.state !== "succeeded") return <p class="quiet">{t("How far it came is not known.")}</p>;
  return (
    <ol class="steps" aria-label={t("Phases")}>
      {phases.map((phase, i) => {
        const state = job.state === "succeeded" || i < at ? "done" : i > at ? "todo" : pending(job.state) ? "here" : "stopped";
        const icon: IconName = { done: "ok", todo: "none", here: "running", stopped: "failed" }[state] as IconName;
        return (
          <li key={phase} class={state} aria-current={state === "here" ? "step" : undefined}>
            <Icon name={icon} class={state === "here" ? "spin" : ""} />
            {phaseName(phase)}
            <span class="hidden">{t({ done: "done", todo: "not yet", here: "now", stopped: "ended here" }[state])}</span>
          </li>
        );
      })}
    </ol>
  );
}

function Gauge({ job }: { job: Job }) {
  const speed = useSpeed(job);
  const { phase, bytes_done: done, bytes_total: total, files_done: files, files_total: allFiles } = job.progress ?? {};
  const known = done !== undefined && total !== undefined && total > 0;
  const left = known && speed ? ((total - done) / speed) * 1000 : null;
  const running = job.state === "running" || job.state === "cancelling";
  return (
    <div class="gauge">
      <div class="gauge-figures">
        <span class="big">{known ? `${number(Math.floor((100 * done) / total))} %` : job.state === "pending" ? t("waiting") : phaseName(phase) || t(job.state)}</span>
        {known && <span class="quiet">{phaseName(phase)}</span>}
        {done !== undefined && done >= 0 && <span>{known ? t("{done} of {total}", { done: bytes(done), total: bytes(total) }) : bytes(done)}</span>}
        {files !== undefined && files >= 0 && <span>{allFiles !== undefined && allFiles > 0 ? t("{done} of {total} files", { done: number(files), total: number(allFiles) }) : tn(files, "{n} file", "{n} files")}</span>}
        {running && speed !== null && <span>{bytes(speed)}/s</span>}
        {running && left !== null && left > 0 && <span>{t("{span} left", { span: coarse(left) })}</span>}
      </div>
      {running && <progress max={known ? total : 1} value={known ? done : undefined} aria-label={t("Progress of {name}", { name: job.operation })} />}
    </div>
  );
}

function OneJob({ id }: { id: string }) {
  const [asking, ask] = useState(false);
  const [forgetting, forget] = useState(false);
  const data = useData<Job>(`job/${id}`, () => get("/jobs/{job_id}", { params: { job_id: id } }), 1000, [`job:${id}`]);
  const job = data.value;
  const back = { to: ["jobs"], name: t("Jobs") };
  if (!job) {
    return (
      <>
        <Head title={t("Job")} back={back} />
        {data.error ? <Trouble error={data.error} /> : <Loading />}
      </>
    );
  }
  const running = pending(job.state);
  const cancelling = job.state === "cancelling";
  const why = !running ? t("The job has ended.") : cancelling ? t("It is being cancelled already.") : !job.cancellable ? t("This operation cannot be cancelled: half-way something would stay held.") : null;
  const ms = took(job);
  const owner = (job as { owner?: string }).owner;
  return (
    <>
      <Head title={job.operation} back={back} lead={<><JobBadge state={job.state} />{job.label && <span>{job.label}</span>}{ms !== null && <span class="num">{running ? coarse(ms) : span(ms)}</span>}{owner && <span>{owner}</span>}</>}>
        <CopyButton text={curl("GET", `/jobs/${job.id}?wait=60`)}>{t("Copy as curl")}</CopyButton>
        {can(running ? "jobCancel" : "jobRelease") && (running ? <Button kind="danger" icon="cancelled" why={why} onClick={() => ask(true)}>{t("Cancel")}</Button> : <Button kind="ghost" icon="trash" onClick={() => forget(true)}>{t("Release")}</Button>)}
      </Head>
      <Announce>{running ? "" : t("{operation} has ended: {state}", { operation: job.operation, state: t(job.state) })}</Announce>
      {data.error && data.error.status !== 0 && <Trouble error={data.error} />}
      {job.error && (
        <Trouble title={t("It failed.")} error={new ApiError(500, { detail: job.error.detail, hint: job.error.hint, hresult: job.error.hresult }, "")} />
      )}
      {(running || PHASES[job.operation]) && (
        <Panel title={t("Progress")}>
          {running && <Gauge job={job} />}
          {PHASES[job.operation] && <Phases job={job} />}
        </Panel>
      )}
      {job.result && <Result job={job} />}
      {job.error?.writers && job.error.writers.some((writer) => writer.failure !== "S_OK") && (
        <Panel title={t("Writers that failed")}>
          <ul class="plain-list">
            {job.error.writers.filter((writer) => writer.failure !== "S_OK").map((writer) => (
              <li key={writer.instance_id}><strong>{writer.name}</strong> <code>{writer.failure}</code> {writer.application_message}</li>
            ))}
          </ul>
        </Panel>
      )}
      <Panel title={t("Facts")}>
        <Facts
          items={[
            [t("Session"), job.session_id && <Link to={["sessions", job.session_id]}>{shortId(job.session_id)}</Link>],
            [t("Result code"), <><code>{job.hresult}</code> <span class="quiet">{job.code}</span></>],
            [t("Made"), <Time at={job.created_at} />],
            [t("Begun"), <Time at={job.started_at} />],
            [t("Ended"), job.finished_at && <Time at={job.finished_at} />],
            [t("Record kept until"), job.expires_at && <Time at={job.expires_at} />],
            [t("Limits"), job.limits && limitsOf(job.limits)],
            [t("Id"), <Id id={job.id} />],
          ]}
        />
      </Panel>
      <Log job={job} />
      {running && (
        <Panel title={t("The same with curl")}>
          <Curl verb="GET" path={`/jobs/${job.id}?wait=60`} />
        </Panel>
      )}
      {asking && <CancelDialog job={job} onClose={() => ask(false)} />}
      {forgetting && <ReleaseDialog job={job} onClose={() => forget(false)} />}
    </>
  );
}

interface Cleanup {
  thawed?: unknown[];
  removed?: unknown[];
  failed?: unknown[];
  left_behind?: { object?: string; reason?: string }[];
}

function Result({ job }: { job: Job }) {
  const result = job.result as Record<string, unknown>;
  const cleanup = result.cleanup as Cleanup | undefined;
  const freeze = result.freeze as { window_ms?: number } | undefined;
  const damaged = result.damaged as unknown[] | undefined;
  const warnings = result.warnings as unknown[] | undefined;
  const backup = result.backup_id as string | undefined;
  const undone = cleanup && [...(cleanup.thawed ?? []), ...(cleanup.removed ?? []), ...(cleanup.failed ?? []), ...(cleanup.left_behind ?? [])].length > 0;
  const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const show = (name: string, list: unknown[] | undefined) => list && list.length > 0 && [name, <ul class="plain-list">{list.map((one) => <li key={text(one)}><code class="small">{text(one)}</code></li>)}</ul>] as [string, preact.ComponentChildren];
  const rows: [string, preact.ComponentChildren][] = [
    backup && [t("Backup"), <Link to={["backups", backup]}>{t("Show the backup")}</Link>],
    freeze?.window_ms !== undefined && [t("Freeze window"), span(freeze.window_ms)],
    typeof result.verified === "boolean" && [t("Verified"), result.verified ? <Badge tone="ok" icon="ok">{t("read back and equal")}</Badge> : t("no")],
    typeof result.target === "string" && [t("Restored to"), <code>{result.target}</code>],
    typeof result.files === "number" && [t("Files"), number(result.files)],
    typeof result.bytes === "number" && [t("Bytes"), bytes(result.bytes)],
    typeof result.found === "number" && [t("Found"), number(result.found)],
    typeof result.added === "number" && [t("Added"), number(result.added)],
    typeof result.gone === "number" && [t("Gone"), result.gone ? <Badge tone="bad" icon="failed">{number(result.gone)}</Badge> : number(result.gone)],
    damaged && [t("Damaged"), damaged.length ? <Badge tone="bad" icon="failed">{number(damaged.length)}</Badge> : <Badge tone="ok" icon="ok">{t("nothing")}</Badge>],
  ].filter(Boolean) as [string, preact.ComponentChildren][];
  const lists = [show(t("Damaged"), damaged), show(t("Warnings"), warnings)].filter(Boolean) as [string, preact.ComponentChildren][];
  const cleared = cleanup ? ([show(t("Thawed"), cleanup.thawed), show(t("Removed"), cleanup.removed), show(t("Could not be removed"), cleanup.failed), show(t("Left behind"), cleanup.left_behind)].filter(Boolean) as [string, preact.ComponentChildren][]) : [];
  return (
    <>
      {(rows.length > 0 || lists.length > 0) && (
        <Panel title={t("Result")}>
          <Facts items={[...rows, ...lists]} />
        </Panel>
      )}
      {undone ? (
        <Panel title={job.state === "succeeded" ? t("Cleared up") : t("What was undone")}>
          <Facts items={cleared} />
        </Panel>
      ) : (
        job.state === "cancelled" && <Panel title={t("What was undone")}><p class="quiet">{t("Nothing was held, and nothing had to be removed.")}</p></Panel>
      )}
    </>
  );
}

function ReleaseDialog({ job, onClose }: { job: Job; onClose: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const release = async (): Promise<void> => {
    try {
      await call("post", "/jobs/{job_id}/release", { params: { job_id: job.id } });
      go(["jobs"]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <Dialog title={t("Release this job?")} onClose={onClose}>
      <p>{t("Its record leaves the lists and cannot be read any more. What the job has done stays, and so does the audit trail.")}</p>
      <Trouble error={error} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Keep it")}</Button>
        <Button kind="danger" icon="trash" onClick={release}>{t("Release the job")}</Button>
      </div>
    </Dialog>
  );
}

export function CancelDialog({ job, onClose }: { job: Job; onClose: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const cancel = async (): Promise<void> => {
    try {
      await call("delete", "/jobs/{job_id}", { params: { job_id: job.id } });
      invalidate();
      onClose();
    } catch (cause) {
      setError(cause as ApiError);
      invalidate([`job:${job.id}`]);
    }
  };
  if (!pending(job.state)) {
    return (
      <Dialog title={t("Cancel {operation}?", { operation: job.operation })} onClose={onClose}>
        <p><JobBadge state={job.state} /></p>
        <p>{t("The job has ended meanwhile: there is nothing left to cancel.")}</p>
        <div class="dialog-foot"><Button kind="main" onClick={onClose}>{t("Close")}</Button></div>
      </Dialog>
    );
  }
  return (
    <Dialog title={t("Cancel {operation}?", { operation: job.operation })} onClose={onClose}>
      <p>{t("This is what cancelling does now{phase}:", { phase: job.progress?.phase ? ` (${phaseName(job.progress.phase)})` : "" })}</p>
      <ul>{undoes(job).map((line) => <li key={line}>{t(line)}</li>)}</ul>
      <p class="quiet small">{t("Once it is accepted, the job ends cancelled, never succeeded.")}</p>
      <Curl verb="DELETE" path={`/jobs/${job.id}`} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Let it go on")}</Button>
        <Button kind="danger" icon="cancelled" onClick={cancel}>{t("Cancel the job")}</Button>
      </div>
      <Trouble error={error} />
    </Dialog>
  );
}
