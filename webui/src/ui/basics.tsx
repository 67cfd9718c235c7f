// Small parts that every screen is made of.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { ApiError } from "../api/client";
import { t } from "../i18n";
import { clock, minute, now } from "../state/clock";
import { href } from "../state/route";
import { absolute, relative } from "./format";
import { Icon, type IconName } from "./icon";

const HOUR_MS = 3_600_000;

/** "3 h ago", with the date and time as its title. */
export function Time({ at, class: extra }: { at: string | null | undefined; class?: string }) {
  if (!at) return <span class="quiet">–</span>;
  const ms = Date.parse(at);
  return (
    <time class={extra ?? ""} dateTime={at} title={absolute(ms)}>
      {relative(ms, Math.abs(clock() - ms) > HOUR_MS ? minute.value : now.value)}
    </time>
  );
}

export type Tone = "ok" | "bad" | "warn" | "run" | "off" | "ice";

export function Badge({ tone, icon, children }: { tone: Tone; icon: IconName; children: ComponentChildren }) {
  return (
    <span class={`badge ${tone}`}>
      <Icon name={icon} />
      <span>{children}</span>
    </span>
  );
}

export function Link({ to, query, children, class: extra = "", title }: { to: string[]; query?: Record<string, string | undefined>; children: ComponentChildren; class?: string; title?: string }) {
  return (
    <a href={href(to, query)} class={extra} title={title ?? ""}>
      {children}
    </a>
  );
}

export interface ButtonProps {
  children: ComponentChildren;
  onClick?: () => unknown;
  kind?: "plain" | "main" | "danger" | "ghost" | undefined;
  icon?: IconName | undefined;
  /** Why it cannot be used now: said to everybody, not only shown on hover. */
  why?: string | null | undefined;
  type?: "button" | "submit";
  label?: string;
  small?: boolean;
}

export function Button({ children, onClick, kind = "plain", icon, why, type = "button", label, small }: ButtonProps) {
  const [busy, setBusy] = useState(false);
  const id = useId();
  const press = async (): Promise<void> => {
    if (why || busy || !onClick) return;
    setBusy(true);
    try {
      await onClick();
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button type={type} class={`button ${kind} ${small ? "small" : ""}`} aria-disabled={why || busy ? "true" : undefined} aria-busy={busy ? "true" : undefined}
        aria-label={label} aria-describedby={why ? id : undefined} title={why ?? undefined} onClick={type === "button" ? () => void press() : undefined}>
        {icon && <Icon name={icon} />}
        <span>{children}</span>
      </button>
      {why && <span id={id} class="hidden">{why}</span>}
    </>
  );
}

/** What went wrong, in the daemon's words: detail, hint, each fault, request id. */
export function Trouble({ error, title }: { error: ApiError | null | undefined; title?: string }) {
  if (!error) return null;
  const { problem } = error;
  const saidBelow = problem.errors?.some((fault) => problem.detail?.includes(fault.detail));
  return (
    <div class="note bad" role="alert">
      <Icon name="failed" />
      <div>
        <strong>{title ?? problem.title ?? t("That did not work.")}</strong>
        {problem.detail && problem.detail !== problem.title && !saidBelow && <p>{problem.detail}</p>}
        {problem.hint && !problem.hint.startsWith("See `errors`") && <p class="hint">{problem.hint}</p>}
        {Boolean(problem.errors?.length) && (
          <ul>
            {problem.errors?.map((fault) => (
              <li key={fault.pointer}>
                <code>{fault.pointer}</code> {fault.detail}
              </li>
            ))}
          </ul>
        )}
        <p class="small quiet">
          {problem.hresult && (problem.type?.startsWith("/problems/") ? <a href={problem.type} target="_blank" rel="noreferrer"><code>{problem.hresult}</code></a> : <code>{problem.hresult}</code>)} {error.requestId && <>{t("request")} <code>{error.requestId}</code></>}
        </p>
      </div>
    </div>
  );
}

export function Note({ tone, icon, children }: { tone: Tone; icon: IconName; children: ComponentChildren }) {
  return (
    <div class={`note ${tone}`}>
      <Icon name={icon} />
      <div>{children}</div>
    </div>
  );
}

export function CopyButton({ text, children }: { text: string; children: ComponentChildren }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 2000);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button type="button" class="button ghost small" onClick={() => void navigator.clipboard.writeText(text).then(() => setDone(true))}>
      <Icon name={done ? "ok" : "copy"} />
      <span aria-live="polite">{done ? t("Copied") : children}</span>
    </button>
  );
}

/** The same by hand: a line that can be pasted. */
export function curl(verb: string, path: string, body?: unknown): string {
  const data = body === undefined ? "" : ` \\\n  -H 'Content-Type: application/json' -d '${JSON.stringify(body).replace(/'/g, "'\\''")}'`;
  return `curl -sS --cacert ca.pem -H "Authorization: Bearer $TOKEN" \\\n  ${verb === "GET" ? "" : `-X ${verb} `}'${location.origin}${path}'${data}`;
}

export function Curl({ verb, path, body }: { verb: string; path: string; body?: unknown }) {
  const line = curl(verb, path, body);
  return (
    <div class="curl">
      <pre tabIndex={0} aria-label={t("The same with curl")}>{line}</pre>
      <CopyButton text={line}>{t("Copy")}</CopyButton>
    </div>
  );
}

/** Nothing here yet: what would be, and how it comes to be. */
export function Empty({ icon, title, children }: { icon: IconName; title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Loading() {
  return <p class="loading quiet" role="status">{t("Loading …")}</p>;
}

let arriving = false;

/** Another screen was asked for: the keyboard goes to its heading, now or as soon as it is there. */
export function arrive(): void {
  const heading = document.querySelector<HTMLElement>("main h1");
  arriving = !heading;
  heading?.focus({ preventScroll: true });
}

/** The same, once the screen that was asked for is drawn. */
export const willArrive = (): void => void (arriving = true);

export function Head({ title, children, back, lead }: { title: string; children?: ComponentChildren; back?: { to: string[]; name: string }; lead?: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · quiesced`;
  }, [title]);
  useEffect(() => {
    if (arriving) arrive();
  }, []);
  return (
    <header class="head">
      <div class="head-text">
        {back && (
          <Link to={back.to} class="back">
            <Icon name="left" />
            {back.name}
          </Link>
        )}
        <h1 tabIndex={-1}>{title}</h1>
        {lead && <div class="lead">{lead}</div>}
      </div>
      {children && <div class="actions">{children}</div>}
    </header>
  );
}

export function Panel({ title, children, aside, flush }: { title: string; children: ComponentChildren; aside?: ComponentChildren; flush?: boolean }) {
  const id = useId();
  return (
    <section class={`panel ${flush ? "flush" : ""}`} aria-labelledby={id}>
      <div class="panel-head">
        <h2 id={id}>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

/** Names and values; null values are left out. */
export function Facts({ items }: { items: [string, ComponentChildren | null | undefined][] }) {
  return (
    <dl class="facts">
      {items
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

export function Id({ id }: { id: string }) {
  return <code class="id" title={id}>{id}</code>;
}

export function Field({ label, hint, children }: { label: string; hint?: ComponentChildren; children: (id: string) => ComponentChildren }) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(id)}
      {hint && <p class="small quiet">{hint}</p>}
    </div>
  );
}

/** The lines of a text field that say something. */
export const lines = (text: string): string[] => text.split("\n").map((line) => line.trim()).filter(Boolean);

export function Check({ checked, onChange, children }: { checked: boolean; onChange: (on: boolean) => void; children: ComponentChildren }) {
  return <label class="check"><input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} /><span>{children}</span></label>;
}

/** A modal dialog; Escape and the cross close it. */
export function Dialog({ title, onClose, children, wide }: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  const gone = useRef(false);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => {
      gone.current = true; // taken away by its owner: nobody has closed it
      dialog?.close(); // the browser gives the keyboard back to who had it
      setTimeout(() => document.activeElement === document.body && arrive()); // unless that has gone with what was done
    };
  }, []);
  return (
    <dialog ref={ref} class={wide ? "wide" : ""} aria-labelledby={id} onClose={() => !gone.current && onClose()} onClick={(event) => event.target === ref.current && ref.current?.close()}>
      <div class="dialog-body">
        <div class="dialog-head">
          <h2 id={id}>{title}</h2>
          <button type="button" class="button ghost square" aria-label={t("Close")} onClick={() => ref.current?.close()}>
            <Icon name="close" />
          </button>
        </div>
        {children}
      </div>
    </dialog>
  );
}

/** Says the end of something to screen readers, and only ends. */
export function Announce({ children }: { children: ComponentChildren }) {
  return <p class="hidden" role="status" aria-live="polite">{children}</p>;
}

/** Calls back when it is scrolled into view. */
export function Sentinel({ onSeen }: { onSeen: () => unknown }) {
  const ref = useRef<HTMLDivElement>(null);
  const call = useRef(onSeen);
  call.current = onSeen;
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const observer = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && void call.current(), { rootMargin: "400px" });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return <div ref={ref} class="sentinel" />;
}

/** A row of choices for one filter, as a select. */
export function Choice({ label, value, options, onChange }: { label: string; value: string; options: [string, string][]; onChange: (value: string) => void }) {
  const id = useId();
  return (
    <div class="choice">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([key, name]) => (
          <option key={key} value={key} selected={key === value}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}

/** A consistency grade in small: a dot with its word. */
export function GradeDot({ grade }: { grade: string | null }) {
  return grade ? <span class={`dot ${grade}`}>{t("grade {grade}", { grade: t(grade) })}</span> : null;
}
