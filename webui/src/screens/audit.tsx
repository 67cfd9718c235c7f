// The audit trail: who changed what, when, from where, and what came of it.
import { signal } from "@preact/signals";
import { get } from "../api/client";
import type { components } from "../api/contract";
import { t, tn } from "../i18n";
import { useList } from "../state/list";
import { filter, href, route } from "../state/route";
import { Badge, Button, Curl, Empty, Head, Loading, Sentinel, Time, Trouble } from "../ui/basics";
import { shortId } from "../ui/format";

type Entry = components["schemas"]["AuditRecord"];
type Row = Omit<Entry, "id"> & { id: string; object: string | null };

/** The newest seal of the trail, whatever is shown of it; undefined before the first answer. */
const seal = signal<components["schemas"]["AuditSeal"] | null | undefined>(undefined);

function Sealed() {
  if (seal.value === undefined) return null;
  return (
    <p class="small quiet" data-sealed={seal.value ? seal.value.seal : 0}>
      {seal.value ? <>{t("Sealed up to record {n}", { n: seal.value.seal })} · <Time at={seal.value.time} /></> : t("Nothing of it is sealed yet")}
    </p>
  );
}

export interface Call {
  last: Row;
  asked: Entry["asked"];
  outcome: boolean;
}

/** One line for each call: its outcome, with what its intent says was asked. Records are newest first: outcomes come before their intents. */
export function callsOf(records: Row[]): Call[] {
  const calls = new Map<string, Call>();
  for (const record of records) {
    const known = calls.get(record.call);
    if (known) known.asked ??= record.asked;
    else calls.set(record.call, { last: record, asked: record.asked, outcome: record.kind === "outcome" });
  }
  return [...calls.values()];
}

const PLACES: [string, string][] = [["/sessions/", "sessions"], ["/jobs/", "jobs"], ["/backups/", "backups"], ["/snapshots/", "snapshots"], ["/webhooks/", "webhooks"]];

function ObjectOf({ record }: { record: Row }) {
  if (!record.object) return null;
  const place = PLACES.find(([path]) => record.path.startsWith(path));
  return place ? <a href={href([place[1], record.object])}>{shortId(record.object)}</a> : <code>{record.object}</code>;
}

function Outcome({ call: { last, outcome } }: { call: Call }) {
  if (!outcome) return <Badge tone="run" icon="pending">{t("begun")}</Badge>;
  if (last.succeeded === null || last.succeeded === undefined) return <Badge tone="warn" icon="warn">{t("not known")}</Badge>;
  return last.succeeded ? <Badge tone="ok" icon="ok">{t("done")}</Badge> : <Badge tone="bad" icon="failed">{t("refused")}</Badge>;
}

export function Audit() {
  const { principal = "", operation = "", object = "" } = route.value.query;
  const list = useList<Row>(
    `audit/${principal}/${operation}/${object}`,
    async (cursor) => {
      const page = await get("/audit", { query: { limit: 100, cursor, principal: principal || undefined, operation: operation || undefined, object: object || undefined } as never });
      seal.value = page.last_seal;
      return { items: page.items.map((one) => ({ ...one, id: String(one.seq).padStart(16, "0"), object: one.id })), next_cursor: page.next_cursor };
    },
    10_000,
    ["jobs", "sessions", "backups"],
  );
  const filters: [string, string, string][] = [["principal", t("Principal"), principal], ["operation", t("Operation"), operation], ["object", t("Object"), object]];
  const filtered = Boolean(principal || operation || object);
  return (
    <>
      <Head title={t("Audit")} lead={<span>{t("Who changed what, and what came of it. Each record carries the hash of the one before.")}</span>} />
      <Sealed />
      <div class="filters">
        {filters.map(([name, title, value]) => (
          <div class="choice" key={name}>
            <label for={`audit-${name}`}>{title}</label>
            <input id={`audit-${name}`} value={value} onChange={(event) => filter({ [name]: event.currentTarget.value.trim() })} />
          </div>
        ))}
        {filtered && <Button small kind="ghost" icon="close" onClick={() => filter({ principal: null, operation: null, object: null })}>{t("Show all")}</Button>}
      </div>
      {list.error && list.error.status !== 0 && <Trouble error={list.error} />}
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="jobs" title={filtered ? t("No record matches") : t("Nothing was changed yet")}>
          <p>{t("Every call that changes something is written here before it happens, and again when it has ended.")}</p>
          <Curl verb="GET" path="/audit?limit=50" />
        </Empty>
      ) : (
        <div class="panel flush sticky">
          <table class="audit">
            <caption class="hidden">{t("Calls, newest first")}</caption>
            <thead>
              <tr>
                <th scope="col">{t("Operation")}</th>
                <th scope="col">{t("Outcome")}</th>
                <th scope="col">{t("When")}</th>
                <th scope="col" class="p2">{t("Principal")}</th>
                <th scope="col" class="p2">{t("Object")}</th>
                <th scope="col" class="p3">{t("Asked")}</th>
              </tr>
            </thead>
            <tbody>
              {callsOf(list.items).map((call) => (
                <tr key={call.last.call}>
                  <th scope="row">
                    {call.last.operation}
                    <div class="only-narrow small quiet">{call.last.principal}</div>
                  </th>
                  <td>
                    <Outcome call={call} />
                    {call.last.hresult && call.last.succeeded === false && <div class="small quiet">{call.last.hresult}{call.last.repeated ? ` · ${t("{n} times", { n: call.last.repeated })}` : ""}</div>}
                  </td>
                  <td><Time at={call.last.time} /></td>
                  <td class="p2"><a href={href(["audit"], { principal: call.last.principal })}>{call.last.principal || t("nobody")}</a><div class="small quiet">{call.last.from}</div></td>
                  <td class="p2"><ObjectOf record={call.last} /></td>
                  <td class="p3">{call.asked && Object.keys(call.asked).length > 0 && <code class="small">{JSON.stringify(call.asked)}</code>}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {list.more ? <Sentinel key={list.items.length} onSeen={list.loadMore} /> : <p class="small quiet foot">{tn(list.items.length, "One record.", "{n} records.")}</p>}
        </div>
      )}
    </>
  );
}
