// Webhooks: who is told of events, how that goes, and every delivery.
import { useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import type { components } from "../api/contract";
import { t, tn } from "../i18n";
import { can } from "../model/can";
import { useData } from "../state/data";
import { useList } from "../state/list";
import { filter, go, route } from "../state/route";
import { Badge, Button, Choice, CopyButton, Curl, Dialog, Empty, Facts, Field, Head, Id, Link, Loading, Note, Panel, Sentinel, Time, Trouble } from "../ui/basics";
import { shortId, span } from "../ui/format";

type Webhook = components["schemas"]["Webhook"];
type Delivery = components["schemas"]["Delivery"];
type EventType = components["schemas"]["EventType"];

const EVENTS: EventType[] = [
  "session.changed", "session.released", "session.thawed", "job.changed", "job.released", "snapshot.created", "snapshot.deleted", "snapshot.exposed",
  "snapshot.unexposed", "snapshot.reverted", "backup.changed", "backup.deleted", "webhook.disabled",
];

export function Webhooks({ path }: { path: string[] }) {
  return path[0] ? <OneWebhook id={path[0]} /> : <WebhookList />;
}

function StateOf({ state }: { state: Webhook["state"] }) {
  if (state === "active") return <Badge tone="ok" icon="ok">{t("active")}</Badge>;
  return state === "failing" ? <Badge tone="bad" icon="failed">{t("failing")}</Badge> : <Badge tone="off" icon="cancelled">{t("disabled")}</Badge>;
}

function DeliveryBadge({ state }: { state: Delivery["state"] }) {
  if (state === "delivered") return <Badge tone="ok" icon="ok">{t("delivered")}</Badge>;
  return state === "failed" ? <Badge tone="bad" icon="failed">{t("failed")}</Badge> : <Badge tone="run" icon="pending">{t("pending")}</Badge>;
}

function WebhookList() {
  const list = useList<Webhook>("webhooks", async (cursor) => get("/webhooks", { query: { limit: 100, cursor } as never }), 10_000, ["webhooks"]);
  const [making, make] = useState(false);
  return (
    <>
      <Head title={t("Webhooks")} lead={<span>{t("Addresses that are told what happens, signed, at least once.")}</span>}>
        {can("webhookCreate") && <Button kind="main" icon="plus" onClick={() => make(true)}>{t("New webhook")}</Button>}
      </Head>
      <Trouble error={list.error} />
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="link" title={t("No webhooks yet")}>
          <p>{t("Let a console or a chat know when a job ends. The secret for checking signatures is shown once.")}</p>
          <Curl verb="POST" path="/webhooks" body={{ name: "console", url: "https://console.example.org/hooks/quiesced", events: ["job.changed"] }} />
        </Empty>
      ) : (
        <div class="panel flush">
          <table>
            <thead><tr><th scope="col">{t("Name")}</th><th scope="col">{t("State")}</th><th scope="col" class="p2">{t("Events")}</th><th scope="col" class="p2">{t("Made")}</th></tr></thead>
            <tbody>
              {list.items.map((one) => (
                <tr key={one.id}>
                  <th scope="row"><Link to={["webhooks", one.id]}>{one.name || shortId(one.id)}</Link><div class="small quiet"><code>{one.url}</code></div></th>
                  <td><StateOf state={one.state} />{one.failing_since && <div class="small quiet">{t("since")} <Time at={one.failing_since} /></div>}</td>
                  <td class="p2 small">{one.events.length ? one.events.join(", ") : t("all")}</td>
                  <td class="p2"><Time at={one.created_at} /></td>
                </tr>
              ))}
            </tbody>
          </table>
          {list.more && <Sentinel key={list.items.length} onSeen={list.loadMore} />}
        </div>
      )}
      {making && <Settings of={null} onClose={() => { make(false); void list.refresh(); }} />}
    </>
  );
}

function Secret({ secret, onClose }: { secret: string; onClose: () => void }) {
  return (
    <Dialog title={t("The secret")} onClose={onClose}>
      <Note tone="warn" icon="warn">{t("It is shown now and never again. The receiver checks signatures with it.")}</Note>
      <p class="secret">{secret}</p>
      <CopyButton text={secret}>{t("Copy the secret")}</CopyButton>
      <div class="dialog-foot"><Button kind="main" onClick={onClose}>{t("I have it")}</Button></div>
    </Dialog>
  );
}

/** A new one, or one that is there. */
function Settings({ of, onClose }: { of: Webhook | null; onClose: () => void }) {
  const [name, setName] = useState(of?.name ?? "");
  const [url, setUrl] = useState(of?.url ?? "");
  const [events, setEvents] = useState<EventType[]>(of?.events ?? ["job.changed"]);
  const [ca, setCa] = useState(of?.ca_pem ?? "");
  const [secret, setSecret] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const save = async (): Promise<void> => {
    try {
      if (!of) return setSecret((await call("post", "/webhooks", { body: { url, events, ...(name && { name }), ...(ca && { ca_pem: ca }) } })).secret);
      await call("patch", "/webhooks/{webhook_id}", { params: { webhook_id: of.id }, body: { url, events, name, ca_pem: ca || null }, guarded: true });
      onClose();
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  if (secret) return <Secret secret={secret} onClose={onClose} />;
  return (
    <Dialog title={of ? t("Change the webhook") : t("New webhook")} onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); void save(); }}>
        <Field label={t("Address")} hint={t("https://…, on the public internet unless the configuration allows others.")}>{(id) => <input id={id} required type="url" placeholder="https://console.example.org/hooks/quiesced" value={url} onInput={(event) => setUrl(event.currentTarget.value)} />}</Field>
        <Field label={t("Name")}>{(id) => <input id={id} maxLength={128} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>
        <fieldset>
          <legend>{t("Events; none chosen is all")}</legend>
          <div class="choices">
            {EVENTS.map((one) => (
              <label class="check" key={one}>
                <input type="checkbox" checked={events.includes(one)} onChange={(event) => setEvents(event.currentTarget.checked ? [...events, one] : events.filter((other) => other !== one))} />
                <span>{one}</span>
              </label>
            ))}
          </div>
        </fieldset>
        <details open={Boolean(ca)}>
          <summary>{t("A certificate authority of its own")}</summary>
          <Field label={t("PEM")} hint={t("Where the receiver's certificate is signed by nobody whom this host trusts.")}>{(id) => <textarea id={id} rows={4} spellcheck={false} value={ca} onInput={(event) => setCa(event.currentTarget.value)} />}</Field>
        </details>
        <Trouble error={error} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Back")}</Button>
          <Button kind="main" type="submit">{of ? t("Change it") : t("Make the webhook")}</Button>
        </div>
      </form>
    </Dialog>
  );
}

const OVERLAPS: [number, string][] = [[0, "not at all"], [3600, "1 hour"], [86400, "1 day"], [7 * 86400, "7 days"], [30 * 86400, "30 days"]];

function Rotate({ onClose, run }: { onClose: () => void; run: (seconds: number) => Promise<void> }) {
  const [seconds, setSeconds] = useState(86400);
  return (
    <Dialog title={t("Rotate the secret")} onClose={onClose}>
      <p>{t("A new secret is made and shown once. Until the former one ends, every delivery carries two signatures.")}</p>
      <Field label={t("The former one signs on for")}>
        {(id) => <select id={id} value={String(seconds)} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>{OVERLAPS.map(([one, text]) => <option key={one} value={one} selected={one === seconds}>{t(text)}</option>)}</select>}
      </Field>
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Back")}</Button>
        <Button kind="main" onClick={async () => { onClose(); await run(seconds); }}>{t("Make a new secret")}</Button>
      </div>
    </Dialog>
  );
}

/** The attempts before the last one, newest first. */
function Earlier({ attempts }: { attempts: Delivery["attempts"] }) {
  if (!attempts.length) return null;
  return (
    <details class="small">
      <summary>{tn(attempts.length, "One attempt before", "{n} attempts before")}</summary>
      <ul class="plain-list">
        {[...attempts].reverse().map((one) => <li key={one.at}><Time at={one.at} />: {one.status ?? t("no answer")} <span class="quiet">{span(one.duration_ms)} {one.error}</span></li>)}
      </ul>
    </details>
  );
}

const STATES: Delivery["state"][] = ["pending", "delivered", "failed"];

function OneWebhook({ id }: { id: string }) {
  const params = { webhook_id: id };
  const { state = "" } = route.value.query;
  const data = useData<Webhook>(`webhook/${id}`, () => get("/webhooks/{webhook_id}", { params }), 5000, ["webhooks"]);
  const deliveries = useList<Delivery>(
    `webhook/${id}/deliveries/${state}`,
    async (cursor) => get("/webhooks/{webhook_id}/deliveries", { params, query: { limit: 50, cursor, state: state || undefined } as never }),
    3000,
  );
  const [secret, setSecret] = useState<string | null>(null);
  const [removing, remove] = useState(false);
  const [changing, change] = useState<Webhook | null>(null);
  const [rotating, rotate] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const back = { to: ["webhooks"], name: t("Webhooks") };
  const webhook = data.value;
  if (!webhook) {
    return (
      <>
        <Head title={t("Webhook")} back={back} />
        {data.error ? <Trouble error={data.error} /> : <Loading />}
      </>
    );
  }
  const attempt = async (run: () => Promise<unknown>): Promise<void> => {
    try {
      await run();
      setError(null);
    } catch (cause) {
      setError(cause as ApiError);
    }
    await Promise.all([data.refresh(), deliveries.refresh()]);
  };
  const erase = async (): Promise<void> => {
    try {
      await call("delete", "/webhooks/{webhook_id}", { params, guarded: true });
      go(["webhooks"]);
    } catch (cause) {
      remove(false);
      setError(cause as ApiError);
    }
  };
  return (
    <>
      <Head title={webhook.name || t("Webhook")} back={back} lead={<><StateOf state={webhook.state} /><code>{webhook.url}</code></>}>
        {can("webhookTest") && <Button icon="play" onClick={() => attempt(() => call("post", "/webhooks/{webhook_id}/test", { params }))}>{t("Send a test")}</Button>}
        {can("webhookPatch") && <Button onClick={() => attempt(() => call("patch", "/webhooks/{webhook_id}", { params, body: { enabled: !webhook.enabled }, guarded: true }))}>{webhook.enabled ? t("Disable") : t("Enable")}</Button>}
        {can("webhookPatch") && <Button onClick={() => change(webhook)}>{t("Change")}</Button>}
        {can("webhookRotate") && <Button onClick={() => rotate(true)}>{t("Rotate the secret")}</Button>}
        {can("webhookDelete") && <Button kind="danger" icon="trash" onClick={() => remove(true)}>{t("Delete")}</Button>}
      </Head>
      <Trouble error={error} />
      {webhook.missed_events > 0 && <Note tone="warn" icon="warn">{tn(webhook.missed_events, "One event was dropped before it could be sent.", "{n} events were dropped before they could be sent.")}</Note>}
      <Panel title={t("Facts")}>
        <Facts
          items={[
            [t("Events"), webhook.events.length ? webhook.events.join(", ") : t("all")],
            [t("Failing since"), webhook.failing_since && <Time at={webhook.failing_since} />],
            [t("Disabled"), webhook.disabled_at && <><Time at={webhook.disabled_at} /> {webhook.disabled_reason}</>],
            [t("Secret made"), <Time at={webhook.secret_made_at} />],
            [t("Former secret until"), webhook.former_secret_until && <Time at={webhook.former_secret_until} />],
            [t("Made by"), webhook.made_by],
            [t("Id"), <Id id={webhook.id} />],
          ]}
        />
      </Panel>
      <Panel title={t("Deliveries")} flush aside={<Choice label={t("State")} value={state} options={[["", t("any")], ...STATES.map((one): [string, string] => [one, t(one)])]} onChange={(value) => filter({ state: value })} />}>
        <Trouble error={deliveries.error} />
        {deliveries.items?.length === 0 && <p class="quiet foot">{t("None yet. A test shows whether the receiver answers.")}</p>}
        {Boolean(deliveries.items?.length) && (
          <table>
            <thead><tr><th scope="col">{t("Event")}</th><th scope="col">{t("State")}</th><th scope="col" class="p2">{t("Last attempt")}</th><th scope="col" class="p2">{t("Made")}</th><th scope="col"><span class="hidden">{t("Actions")}</span></th></tr></thead>
            <tbody>
              {deliveries.items!.map((one) => {
                const last = one.attempts[one.attempts.length - 1];
                return (
                  <tr key={one.id}>
                    <th scope="row">{one.event_type}<div class="small quiet">{one.event_id === null ? t("a test") : `#${one.event_id}`}</div></th>
                    <td><DeliveryBadge state={one.state} /><div class="small quiet">{tn(one.attempt_count, "{n} attempt", "{n} attempts")}{one.next_attempt_at && <>, {t("next")} <Time at={one.next_attempt_at} /></>}</div></td>
                    <td class="p2">{last ? <>{last.status ?? t("no answer")} <span class="quiet">{span(last.duration_ms)}</span><div class="small quiet">{last.error}</div><Earlier attempts={one.attempts.slice(0, -1)} /></> : "–"}</td>
                    <td class="p2"><Time at={one.created_at} /></td>
                    <td class="actions-cell">{can("deliveryRedeliver") && <Button small kind="ghost" label={t("Redeliver {name}", { name: one.event_type })} onClick={() => attempt(() => call("post", "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", { params: { ...params, delivery_id: one.id } }))}>{t("Redeliver")}</Button>}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        )}
        {deliveries.more && <Sentinel key={deliveries.items?.length} onSeen={deliveries.loadMore} />}
      </Panel>
      {secret && <Secret secret={secret} onClose={() => setSecret(null)} />}
      {changing && <Settings of={changing} onClose={() => { change(null); void data.refresh(); }} />}
      {rotating && <Rotate onClose={() => rotate(false)} run={(overlap_seconds) => attempt(async () => setSecret((await call("post", "/webhooks/{webhook_id}/rotate", { params, body: { overlap_seconds } })).secret))} />}
      {removing && (
        <Dialog title={t("Delete this webhook?")} onClose={() => remove(false)}>
          <p>{t("What is pending is not sent any more.")}</p>
          <div class="dialog-foot">
            <Button onClick={() => remove(false)}>{t("Keep it")}</Button>
            <Button kind="danger" icon="trash" onClick={erase}>{t("Delete the webhook")}</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
