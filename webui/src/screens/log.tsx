// The log of a job: what its session's durable events tell of it, and what went into the daemon's log of errors.
import { get, plain } from "../api/client";
import type { components } from "../api/contract";
import type { Job, LoggedError } from "../api/types";
import { t } from "../i18n";
import { useData } from "../state/data";
import { Panel, Trouble } from "../ui/basics";
import { phrase, span, stamp, words } from "../ui/format";
import { Icon } from "../ui/icon";

type Event = components["schemas"]["Event"];

export interface Line {
  at: string;
  text: string;
  quiet?: string;
  bad?: boolean;
}

/** The events of a finished stream of them (text/event-stream): each `data:` line is one. */
export function eventsOf(text: string): Event[] {
  return text.split("\n").flatMap((line) => (line.startsWith("data:") ? [JSON.parse(line.slice(5)) as Event] : []));
}

const field = (event: Event, name: string): string => String((event.data as Record<string, unknown> | null)?.[name] ?? "");

function textOf(event: Event): Pick<Line, "text" | "quiet" | "bad"> {
  const [resource, what = ""] = event.type.split(".");
  if (event.type === "session.changed") return { text: t("The session is {state}.", { state: t(words(field(event, "state"))) }), quiet: phrase(field(event, "reason")) };
  if (event.type === "job.changed") {
    const failed = field(event, "state") === "failed";
    return { text: `${field(event, "operation")}: ${t(field(event, "state"))}`, quiet: failed ? field(event, "hresult") : "", bad: failed };
  }
  if (event.type === "session.thawed") {
    const took = Number(field(event, "window_ms"));
    const { writers = [], file_systems = [] } = event.data as { writers?: string[]; file_systems?: string[] };
    return { text: took ? t("Thawed after {span}.", { span: span(took) }) : t("Thawed."), quiet: [...writers, ...file_systems].join(", ") };
  }
  if (resource === "snapshot") return { text: t("A snapshot was {what}.", { what: t(what) }), quiet: field(event, "volume") };
  if (event.type === "backup.changed") return { text: field(event, "complete") === "true" ? t("The backup is complete.") : t("The backup is in the catalog, and not complete yet.") };
  return { text: event.type };
}

/** What concerns this job, oldest first: its own events, and those of its session while it was going on. */
export function linesOf(job: Job, events: Event[], errors: LoggedError[]): Line[] {
  const end = job.finished_at ?? "9";
  const own = events.filter((event) => event.job_id === job.id || (event.job_id === null && event.time >= job.created_at && event.time <= end));
  const lines: Line[] = [
    { at: job.created_at, text: t("Made by {name}.", { name: (job as { owner?: string }).owner ?? t("nobody") }) },
    ...(job.started_at ? [{ at: job.started_at, text: t("Begun.") }] : []),
    ...own.filter((event) => event.id !== null && !(event.job_id === job.id && field(event, "state") === "running")).map((event): Line => ({ at: event.time, ...textOf(event) })),
    ...errors.map((error): Line => ({ at: error.time, text: error.text, quiet: [error.hresult, error.writer].filter(Boolean).join(" "), bad: true })),
    ...(job.finished_at && !own.some((event) => event.job_id === job.id && event.type === "job.changed" && field(event, "state") === job.state)
      ? [{ at: job.finished_at, text: `${job.operation}: ${t(job.state)}`, bad: job.state === "failed" }]
      : []),
  ];
  return lines.map((line, i) => ({ line, i })).sort((a, b) => (a.line.at < b.line.at ? -1 : a.line.at > b.line.at ? 1 : a.i - b.i)).map(({ line }) => line)
    .filter((line, at, all) => all.findIndex((one) => one.text === line.text && one.quiet === line.quiet) === at); // told again: what changed is not shown here
}

const read = async (job: Job): Promise<Line[]> => {
  const [told, errors] = await Promise.all([
    job.session_id ? plain("get", `/events?session=${job.session_id}&after=0&follow=false`) : "",
    get("/errors", { query: { job: job.id, limit: 50 } }),
  ]);
  return linesOf(job, eventsOf(told ?? ""), errors.items);
};

export function Log({ job }: { job: Job }) {
  // what changes is told by the stream; a job that has ended changes no more
  const data = useData<Line[]>(`job/${job.id}/log/${job.state}`, () => read(job), job.finished_at ? 300_000 : 5000, [`job:${job.id}`]);
  if (!data.value) return data.error && data.error.status !== 0 ? <Panel title={t("Log")}><Trouble error={data.error} /></Panel> : null;
  return (
    <Panel title={t("Log")} flush>
      <div class="scroll" tabIndex={0} role="group" aria-label={t("Log")}>
        <table class="log">
          <tbody>
            {data.value.map((line, i) => (
              <tr key={i} class={line.bad ? "bad" : ""}>
                <td class="num"><time dateTime={line.at}>{stamp(Date.parse(line.at))}</time></td>
                <td>{line.bad && <Icon name="failed" />} {line.text} <span class="quiet">{line.quiet}</span></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
