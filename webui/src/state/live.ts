// One stream of events for all tabs: the tab that holds the lock reads it and tells the others. Without it everything is polled.
import { effect, signal } from "@preact/signals";
import { contact } from "../api/client";
import type { components } from "../api/contract";
import { offers } from "../api/offers";
import { clock } from "./clock";
import { invalidate } from "./data";

export interface Frozen {
  since: string;
  deadline: string;
  file_systems: string[];
  writers: string[];
  /** The thaw failed: why, and the way out. */
  stuck?: string;
}

/** Do events arrive? null: this daemon has none to offer. */
export const streaming = signal<boolean | null>(offers.events ? false : null);
/** Since when they do not, by the daemon's clock; null: they do. */
export const downSince = signal<number | null>(null);
/** What is frozen this moment, by session, as the stream tells. */
export const frozen = signal<ReadonlyMap<string, Frozen>>(new Map());

type Progress = components["schemas"]["Job"]["progress"];

/** How far pending jobs are, as the stream tells; lists that were read before it are older. */
export const progress = signal<ReadonlyMap<string, Progress>>(new Map());

export const progressOf = (job: { id: string; progress?: Progress }): Progress | undefined => progress.value.get(job.id) ?? job.progress;

interface Told {
  type: string;
  session_id: string | null;
  job_id: string | null;
  data: unknown;
}

/** at: the last durable event that the stream has told, from which whoever reads it next goes on. begins: what is true just now is told afresh. */
type Message = { kind: "event"; event: Told; at?: string } | { kind: "state"; up: boolean; begins?: boolean; at?: string } | { kind: "reset"; at?: string } | { kind: "ask" };

const TYPES = [
  "session.changed", "session.released", "session.frozen", "session.thawed", "job.changed", "job.released", "job.progress", "snapshot.created",
  "snapshot.deleted", "snapshot.exposed", "snapshot.unexposed", "snapshot.reverted", "backup.changed", "backup.deleted", "webhook.disabled",
] as const satisfies readonly components["schemas"]["StreamType"][];
const GATHER_MS = 150;
const PENDING = new Set(["pending", "running", "cancelling"]);

/** The topics whose views an event makes old. */
export function topicsOf(event: Told): string[] {
  const [resource = ""] = event.type.split(".");
  const found: string[] = [];
  if (event.type !== "job.progress") found.push(`${resource}s`);
  if (event.job_id) found.push(`job:${event.job_id}`);
  if (event.type === "job.changed" && event.session_id) found.push("sessions"); // their pending_job
  if (event.session_id && event.type !== "job.progress") found.push(`session:${event.session_id}`);
  return found;
}

/** The job went on: its session's view follows each new phase, and a hold is to be released from every view of sessions. */
function takeProgress(event: Told): string[] {
  const job = event.job_id!;
  const before = progress.peek().get(job);
  const told = (event.data as { progress?: Progress } | null)?.progress;
  const next = new Map(progress.peek());
  if (told) next.set(job, told);
  else next.delete(job);
  progress.value = next;
  if (!event.session_id || before?.phase === told?.phase) return [];
  return told?.phase === "hold" ? ["sessions", `session:${event.session_id}`] : [`session:${event.session_id}`];
}

const due = new Set<string>();
let gathering: ReturnType<typeof setTimeout> | undefined;

function take(event: Told): void {
  if (event.session_id && (event.type === "session.frozen" || event.type === "session.thawed" || event.type === "session.released")) {
    const next = new Map(frozen.peek());
    if (event.type === "session.frozen" && event.data) next.set(event.session_id, event.data as Frozen);
    else next.delete(event.session_id);
    frozen.value = next;
  }
  for (const topic of topicsOf(event)) due.add(topic);
  if (event.type === "job.progress" && event.job_id) for (const topic of takeProgress(event)) due.add(topic);
  else if (event.type === "job.changed" && event.job_id && progress.peek().has(event.job_id) && !PENDING.has(String((event.data as { state?: string } | null)?.state))) takeProgress({ ...event, data: null });
  gathering ??= setTimeout(() => {
    gathering = undefined;
    const topics = [...due];
    due.clear();
    invalidate(topics);
  }, GATHER_MS);
}

/** Until the function that it returns is called. */
export function watch(): () => void {
  if (!offers.events || !("locks" in navigator)) return () => undefined;
  const channel = new BroadcastChannel("quiesced.live");
  const gone = new AbortController();
  let stream: EventSource | undefined;

  let last = "";

  const receive = (message: Message): void => {
    if (message.kind === "ask") return;
    last = message.at || last;
    if (message.kind === "state") downSince.value = message.up ? null : (downSince.peek() ?? clock());
    if (message.kind === "event") take(message.event);
    else if (message.kind === "reset") invalidate();
    else if (message.begins || streaming.peek() !== message.up) {
      streaming.value = message.up;
      // better nothing than something that has passed: a stream begins with what is frozen and how far jobs are
      frozen.value = new Map();
      progress.value = new Map();
      invalidate(); // what came in between is not known
    }
  };
  const tell = (message: Message): void => {
    receive(message);
    channel.postMessage(message);
  };
  channel.onmessage = ({ data }: MessageEvent<Message>) => {
    if (data.kind !== "ask") receive(data);
    else if (stream) {
      channel.postMessage({ kind: "state", up: stream.readyState === EventSource.OPEN, at: last } satisfies Message);
      for (const [session_id, data] of frozen.peek()) {
        channel.postMessage({ kind: "event", event: { type: "session.frozen", session_id, job_id: null, data } } satisfies Message);
      }
    }
  };
  downSince.value = clock();
  channel.postMessage({ kind: "ask" } satisfies Message);

  const lead = (): Promise<void> =>
    new Promise((done) => {
      let again: ReturnType<typeof setTimeout> | undefined;
      const open = (): void => {
        stream = new EventSource(last ? `/events?after=${last}` : "/events");
        stream.onopen = () => tell({ kind: "state", up: true, begins: true });
        stream.onerror = () => {
          tell({ kind: "state", up: false });
          if (stream?.readyState !== EventSource.CLOSED) return; // it comes back by itself
          again = setTimeout(open, 5000);
        };
        for (const type of TYPES) {
          stream.addEventListener(type, (event: MessageEvent<string>) => {
            tell({ kind: "event", event: JSON.parse(event.data) as Told, at: event.lastEventId });
          });
        }
        stream.addEventListener("reset", (event: MessageEvent<string>) => {
          tell({ kind: "reset", at: event.lastEventId });
        });
      };
      open();
      // a stream whose way was cut off may look open for ever: after a silence it is begun anew
      let silent = false;
      const stop = effect(() => {
        const lost = contact.value.lostAt !== null;
        if (silent && !lost) {
          clearTimeout(again);
          stream?.close();
          open();
        }
        silent = lost;
      });
      gone.signal.addEventListener("abort", () => {
        stop();
        clearTimeout(again);
        stream?.close();
        stream = undefined;
        done();
      });
    });
  void navigator.locks.request("quiesced.live", { signal: gone.signal }, lead).catch(() => undefined);
  return () => {
    gone.abort();
    channel.close();
    streaming.value = false;
    downSince.value = null;
    frozen.value = new Map();
    progress.value = new Map();
  };
}
