// Access: tokens, enrolments and certificates. Secrets are shown once, where they are made, and kept nowhere.
import { useState } from "preact/hooks";
import { type ApiError, call, get, login } from "../api/client";
import type { Certificate, Enrolment, Role, Token } from "../api/types";
import { t } from "../i18n";
import { can } from "../model/can";
import { useList } from "../state/list";
import { filter, route } from "../state/route";
import { Badge, Button, CopyButton, Curl, Dialog, Empty, Field, Head, Loading, Note, Panel, Sentinel, Time, Trouble } from "../ui/basics";

const ROLES: [Role, string][] = [
  ["viewer", "sees everything, changes nothing"],
  ["operator", "runs and cancels backups"],
  ["restorer", "restores and verifies"],
  ["auditor", "sees everything, and who did what"],
  ["admin", "may do everything"],
];

type Tab = "tokens" | "enrolments" | "certificates";

export function Access() {
  const tabs: [Tab, string][] = [["tokens", "Tokens"], ...(can("enrolmentList") ? ([["enrolments", "Enrolments"]] as [Tab, string][]) : []), ["certificates", "Certificates"]];
  const tab = (tabs.find(([key]) => key === route.value.query.tab)?.[0] ?? "tokens") as Tab;
  return (
    <>
      <Head title={t("Access")} lead={<span>{t("Who may come in, as whom, and until when.")}</span>} />
      <div class="filters">
        <div class="segmented" role="group" aria-label={t("Kind")}>
          {tabs.map(([key, name]) => <button key={key} type="button" aria-pressed={tab === key} onClick={() => filter({ tab: key })}>{t(name)}</button>)}
        </div>
      </div>
      {tab === "tokens" ? <Tokens /> : tab === "enrolments" ? <Enrolments /> : <Certificates />}
      <Panel title={t("Roles")}>
        <details>
          <summary>{t("What each role may do")}</summary>
          <ul class="plan-list">{ROLES.map(([name, what]) => <li key={name}><strong>{t(name)}</strong><span>{t(what)}</span></li>)}</ul>
        </details>
      </Panel>
    </>
  );
}

interface Row {
  id: string;
  name: string;
  principal: string;
  role: Role;
  state: string;
  expires_at: string;
}

const StateBadge = ({ state }: { state: string }) => (state === "active" ? <Badge tone="ok" icon="ok">{t("active")}</Badge> : <Badge tone="off" icon="pending">{t("expired")}</Badge>);

function Table<T extends Row>({ list, revoke, verb, used, more }: { list: ReturnType<typeof useList<T>>; revoke: ((row: T) => void) | null; verb: string; used: boolean; more?: (row: T) => preact.ComponentChildren }) {
  return (
    <div class="panel flush">
      <table>
        <thead>
          <tr>
            <th scope="col">{t("Name")}</th>
            <th scope="col">{t("Role")}</th>
            <th scope="col" class="p2">{t("Good until")}</th>
            {used && <th scope="col" class="p2">{t("Last used")}</th>}
            <th scope="col"><span class="hidden">{t("Actions")}</span></th>
          </tr>
        </thead>
        <tbody>
          {list.items!.map((row) => {
            const last = row as unknown as { last_used_at?: string | null; last_used_from?: string | null };
            return (
              <tr key={row.id}>
                <th scope="row">{row.name}<StateBadge state={row.state} /><div class="small quiet">{row.principal !== row.name && row.principal} {more?.(row)}</div></th>
                <td>{t(row.role)}<div class="only-narrow small quiet"><Time at={row.expires_at} /></div></td>
                <td class="p2"><Time at={row.expires_at} /></td>
                {used && <td class="p2">{last.last_used_at ? <><Time at={last.last_used_at} /><div class="small quiet">{last.last_used_from}</div></> : <span class="quiet">{t("never")}</span>}</td>}
                <td class="actions-cell">{revoke && <Button small kind="ghost" icon="trash" label={`${verb}: ${row.name}`} onClick={() => revoke(row)}>{verb}</Button>}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {list.more && <Sentinel key={list.items!.length} onSeen={list.loadMore} />}
    </div>
  );
}

function Revoke({ name, text, run, onClose }: { name: string; text: string; run: () => Promise<unknown>; onClose: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  return (
    <Dialog title={t("Revoke {name}?", { name })} onClose={onClose}>
      <p>{text}</p>
      <Trouble error={error} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Keep it")}</Button>
        <Button kind="danger" icon="trash" onClick={() => run().then(onClose, (cause: ApiError) => setError(cause))}>{t("Revoke")}</Button>
      </div>
    </Dialog>
  );
}

function Tokens() {
  const list = useList<Token>("tokens", async (cursor) => get("/tokens", { query: { limit: 100, cursor } as never }), 20_000);
  const [making, make] = useState(false);
  const [revoking, revoke] = useState<Token | null>(null);
  return (
    <>
      {can("tokenCreate") && <div class="filters"><Button kind="main" icon="plus" onClick={() => make(true)}>{t("New token")}</Button></div>}
      <Trouble error={list.error} />
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="access" title={t("No tokens were made")}>
          <p>{t("A token lets a script or a console in. The administrator's first token is not in this list.")}</p>
          <Curl verb="POST" path="/tokens" body={{ name: "monitoring", role: "viewer", expires_in_seconds: 2592000, scopes: ["read"] }} />
        </Empty>
      ) : (
        <Table list={list} used revoke={can("tokenDelete") ? revoke : null} verb={t("Revoke")} more={(row) => row.scopes.length > 0 && <code>{row.scopes.join(" ")}</code>} />
      )}
      {making && <NewToken onClose={() => { make(false); void list.refresh(); }} />}
      {revoking && (
        <Revoke name={revoking.name} text={t("From now on whoever presents it is turned away. Tokens that were made with it end, too.")} onClose={() => { revoke(null); void list.refresh(); }} run={() => call("delete", "/tokens/{token_id}", { params: { token_id: revoking.id } })} />
      )}
    </>
  );
}

const SPANS: [number, string][] = [[86400, "1 day"], [7 * 86400, "7 days"], [30 * 86400, "30 days"], [90 * 86400, "90 days"], [365 * 86400, "1 year"]];

function NewToken({ onClose }: { onClose: () => void }) {
  const mine = login.value!.role;
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const spans: [number, string][] = mine === "admin" ? SPANS : [[0, "as long as what you came with, 90 days at most"], ...SPANS];
  const [seconds, setSeconds] = useState(mine === "admin" ? 90 * 86400 : 0);
  const [scopes, setScopes] = useState((login.value!.scopes ?? []).join(" "));
  const [secret, setSecret] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const create = async (): Promise<void> => {
    try {
      const made = await call("post", "/tokens", { body: { name, role, ...(seconds && { expires_in_seconds: seconds }), scopes: scopes.split(/[\s,]+/).filter(Boolean) } });
      setSecret((made as { token: string }).token);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  if (secret) {
    return (
      <Dialog title={t("The token")} onClose={onClose}>
        <Note tone="warn" icon="warn">{t("It is shown now and never again: the daemon keeps only its hash.")}</Note>
        <p class="secret">{secret}</p>
        <CopyButton text={secret}>{t("Copy the token")}</CopyButton>
        <div class="dialog-foot"><Button kind="main" onClick={onClose}>{t("I have it")}</Button></div>
      </Dialog>
    );
  }
  return (
    <Dialog title={t("New token")} onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); void create(); }}>
        <Field label={t("Name")} hint={t("An administrator's tokens are for others: the name is the principal.")}>{(id) => <input id={id} required maxLength={64} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>
        <Field label={t("Role")}>
          {(id) => (
            <select id={id} value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>
              {ROLES.filter(([one]) => mine === "admin" || one === mine || one === "viewer").map(([one, what]) => <option key={one} value={one}>{t(one)}: {t(what)}</option>)}
            </select>
          )}
        </Field>
        <Field label={t("Good for")}>
          {(id) => (
            <select id={id} value={String(seconds)} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>
              {spans.map(([one, text]) => <option key={one} value={one} selected={one === seconds}>{t(text)}</option>)}
            </select>
          )}
        </Field>
        <Field label={t("Scopes")} hint={t("Nothing: all that the role may. Else words such as read, /backups, read:/jobs, backupCreate.")}>{(id) => <input id={id} placeholder="read" value={scopes} onInput={(event) => setScopes(event.currentTarget.value)} />}</Field>
        <Trouble error={error} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Back")}</Button>
          <Button kind="main" type="submit">{t("Make the token")}</Button>
        </div>
      </form>
    </Dialog>
  );
}

function Enrolments() {
  const list = useList<Enrolment>("enrolments", async (cursor) => get("/enrolments", { query: { limit: 100, cursor } as never }), 20_000);
  const [making, make] = useState(false);
  const [revoking, revoke] = useState<Enrolment | null>(null);
  return (
    <>
      {can("enrolmentCreate") && <div class="filters"><Button kind="main" icon="plus" onClick={() => make(true)}>{t("New enrolment")}</Button></div>}
      <Trouble error={list.error} />
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="access" title={t("No code is waiting")}>
          <p>{t("An enrolment is a code that is good once: with it a console gets a client certificate for its own key.")}</p>
          <Curl verb="POST" path="/enrolments" body={{ name: "console", role: "operator", expires_in_seconds: 3600 }} />
        </Empty>
      ) : (
        <Table list={list} used={false} revoke={can("enrolmentDelete") ? revoke : null} verb={t("Withdraw")} />
      )}
      {making && <NewEnrolment onClose={() => { make(false); void list.refresh(); }} />}
      {revoking && <Revoke name={revoking.name} text={t("The code is good no more.")} onClose={() => { revoke(null); void list.refresh(); }} run={() => call("delete", "/enrolments/{enrolment_id}", { params: { enrolment_id: revoking.id } })} />}
    </>
  );
}

const CODE_SPANS: [number, string][] = [[3600, "1 hour"], ...SPANS.slice(0, 3)];

function NewEnrolment({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("operator");
  const [seconds, setSeconds] = useState(3600);
  const [days, setDays] = useState("90");
  const [code, setCode] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const create = async (): Promise<void> => {
    try {
      setCode(((await call("post", "/enrolments", { body: { name, role, expires_in_seconds: seconds, certificate_days: Number(days) } })) as { code: string }).code);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <Dialog title={t("New enrolment")} onClose={onClose} wide={code !== null}>
      {code ? (
        <>
          <Note tone="warn" icon="warn">{t("Good once, and shown only now.")}</Note>
          <p class="secret">{code}</p>
          <p>{t("On the other machine:")}</p>
          <pre class="document" tabIndex={0}>{`curl -sSk ${location.origin}/ca.pem -o ca.pem   # ${t("compare its fingerprint")}\nopenssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=${name} -keyout ${name}.key -out ${name}.csr\njq -n --arg code '${code}' --rawfile csr ${name}.csr '{code: $code, csr: $csr}' |\n  curl -sS --cacert ca.pem -H 'Content-Type: application/json' -d @- ${location.origin}/certificates | jq -r .certificate > ${name}.pem`}</pre>
          <div class="dialog-foot"><Button kind="main" onClick={onClose}>{t("I have it")}</Button></div>
        </>
      ) : (
        <form onSubmit={(event) => { event.preventDefault(); void create(); }}>
          <Field label={t("Principal")}>{(id) => <input id={id} required maxLength={64} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>
          <Field label={t("Role")}>
            {(id) => <select id={id} value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>{ROLES.map(([one, what]) => <option key={one} value={one} selected={one === role}>{t(one)}: {t(what)}</option>)}</select>}
          </Field>
          <Field label={t("The code is good for")}>
            {(id) => <select id={id} value={String(seconds)} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>{CODE_SPANS.map(([one, text]) => <option key={one} value={one} selected={one === seconds}>{t(text)}</option>)}</select>}
          </Field>
          <Field label={t("The certificate is good for, in days")}>{(id) => <input id={id} type="number" required min={1} max={397} value={days} onInput={(event) => setDays(event.currentTarget.value)} />}</Field>
          <Trouble error={error} />
          <div class="dialog-foot">
            <Button onClick={onClose}>{t("Back")}</Button>
            <Button kind="main" type="submit">{t("Make the code")}</Button>
          </div>
        </form>
      )}
    </Dialog>
  );
}

function Certificates() {
  const list = useList<Certificate>("certificates", async (cursor) => get("/certificates", { query: { limit: 100, cursor } as never }), 20_000);
  const [revoking, revoke] = useState<Certificate | null>(null);
  return (
    <>
      <Trouble error={list.error} />
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="access" title={t("No client certificate was issued")}>
          <p>{t("Those that enrolments bring are listed here. The administrator's own, made at the first start, is not.")}</p>
          <Curl verb="POST" path="/enrolments" body={{ name: "console", role: "operator", expires_in_seconds: 3600 }} />
        </Empty>
      ) : (
        <Table list={list} used revoke={can("certificateDelete") ? revoke : null} verb={t("Revoke")} more={(row) => <code title={row.fingerprint}>{row.fingerprint.slice(0, 16)}…</code>} />
      )}
      {revoking && <Revoke name={revoking.name} text={t("From now on whoever presents it is turned away, on open connections, too.")} onClose={() => { revoke(null); void list.refresh(); }} run={() => call("delete", "/certificates/{certificate_id}", { params: { certificate_id: revoking.id } })} />}
    </>
  );
}
