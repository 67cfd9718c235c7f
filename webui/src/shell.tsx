// The frame of every screen: navigation, who is logged in, what runs, and whether all of it is fresh.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type ApiError, contact, get, login, logOut } from "./api/client";
import { t, tn } from "./i18n";
import { can, type Operation } from "./model/can";
import type { Job, JobState, Session } from "./api/types";
import { JobBadge, ownOnly, pending } from "./model/states";
import { Mark } from "./screens/login";
import { now } from "./state/clock";
import { invalidate, useData } from "./state/data";
import { downSince, frozen, progressOf, streaming } from "./state/live";
import { language, theme, type Language, type Theme } from "./state/prefs";
import { href, route } from "./state/route";
import { Announce, arrive, Button, Link, Time, Trouble } from "./ui/basics";
import { coarse, phaseName, shortTime } from "./ui/format";
import { heldOf } from "./ui/frozen";
import { Icon, type IconName } from "./ui/icon";

const NAV: [string, [string, IconName, string][]][] = [
  ["", [["", "overview", "Overview"], ["new", "plus", "New backup"]]],
  ["What happens", [["jobs", "jobs", "Jobs"], ["sessions", "sessions", "Sessions"]]],
  ["What is kept", [["backups", "backups", "Backups"], ["snapshots", "snapshots", "Snapshots"], ["repositories", "repositories", "Repositories"]]],
  ["What is there", [["writers", "writers", "Writers"], ["providers", "providers", "Providers"]]],
  ["Administration", [["access", "access", "Access"], ["webhooks", "link", "Webhooks"], ["audit", "file", "Audit"], ["about", "about", "About"]]],
];

export const useRunning = () =>
  useData(
    "jobs/pending",
    async () => {
      const of = async (state: JobState): Promise<Job[]> => (await get("/jobs", { query: { state, limit: 50 } })).items;
      const waiting = await of("pending"); // first: one that goes on meanwhile is among those that are asked for later
      const going = await Promise.all([of("running"), of("cancelling")]);
      return [...new Map([...waiting, ...going.flat()].map((job) => [job.id, job])).values()].filter((job) => pending(job.state)).sort((a, b) => (a.id < b.id ? 1 : -1));
    },
    3000,
    ["jobs"],
  );

/** Who may see a screen at all, where not everybody may. */
const NEEDS: Record<string, Operation> = {
  new: "backupCreate", jobs: "jobList", sessions: "sessionList", backups: "backupList", snapshots: "snapshotList", repositories: "repositoryList", writers: "writerList", providers: "providerList",
  webhooks: "webhookList", audit: "auditList",
};

/** 503 is an answer, too: it says why. */
export const useReady = () =>
  useData(
    "ready",
    () => get("/health/ready").catch((error: ApiError) => {
      if (error.status === 503 && Array.isArray((error.problem as { reasons?: unknown }).reasons)) return error.problem as unknown as { ready: boolean; reasons: string[]; warnings: string[] };
      throw error;
    }),
    15_000,
  );

const BEAT_MS = 10_000;

export function Shell({ children }: { children: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  const here = route.value.path[0] ?? "";
  const place = route.value.path.join("/");
  const first = useRef(true);
  useEffect(() => {
    setOpen(false);
    document.querySelectorAll<HTMLElement>(".pop:popover-open").forEach((pop) => pop.hidePopover());
    window.scrollTo(0, 0);
    if (!first.current) arrive();
    first.current = false;
  }, [place]);
  useEffect(() => {
    // what polls rests while the stream tells: this asks on, so that a daemon that is gone silent is missed
    const asking = setInterval(() => void (document.hidden || get("/health/live").catch(() => undefined)), BEAT_MS);
    return () => clearInterval(asking);
  }, []);
  // with the menu's own appearance, not after it: a quick Escape would be missed
  useLayoutEffect(() => {
    if (!open) return;
    const close = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      setOpen(false);
      document.querySelector<HTMLElement>(".nav-button")?.focus();
    };
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, [open]);
  return (
    <div class={`shell ${open ? "nav-open" : ""}`}>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.querySelector<HTMLElement>("main h1")?.focus(); }}>{t("Skip to content")}</a>
      <header class="bar">
        <button type="button" class="button ghost square nav-button" aria-expanded={open} aria-controls="nav" aria-label={t("Navigation")} onClick={() => setOpen(!open)}>
          <Icon name={open ? "close" : "menu"} />
        </button>
        <a class="brand" href="#/"><Mark /> <span>quiesced</span></a>
        <span class="host" title={t("The daemon that you look at")}>{location.host}</span>
        <span class="grow" />
        <FrozenNow />
        <Freshness />
        <Running />
        <Account />
      </header>
      <nav id="nav" aria-label={t("Main")}>
        {NAV.map(([group, items]) => (
          <div key={group} class="nav-group">
            {group && <p class="nav-title">{t(group)}</p>}
            <ul>
              {items.filter(([name]) => !NEEDS[name] || can(NEEDS[name])).map(([name, icon, title]) => (
                <li key={name}>
                  <a href={`#/${name}`} aria-current={here === name ? "page" : undefined} onClick={() => setOpen(false)}>
                    <Icon name={icon} />
                    {t(title)}
                  </a>
                </li>
              ))}
            </ul>
          </div>
        ))}
        <div class="nav-foot"><Preferences /></div>
      </nav>
      <main id="main">
        <Stale />
        {children}
      </main>
    </div>
  );
}

/** Most freezes are over before anybody could look: only what lasts is told aloud, and how it ended. */
const TOLD_AFTER_MS = 5000;

/** Without the stream the sessions themselves are asked; with it nobody is. */
const frozenSessions = async (): Promise<Session[]> =>
  streaming.peek() ? [] : (await get("/sessions", { query: { kind: "backup", limit: 100, fields: "id,label,frozen,hold" } })).items.filter((one) => one.frozen ?? one.hold);

/** On every screen: something is frozen this moment. Aloud it is said once, not with every second. */
function FrozenNow() {
  const polled = useData("frozen-now", frozenSessions, 5000).value ?? [];
  const [oldest] = heldOf(streaming.value ? [] : polled, frozen.value).sort((a, b) => Date.parse(a.since) - Date.parse(b.since));
  const told = useRef(false);
  const since = oldest ? Date.parse(oldest.since) : 0;
  if (!oldest) {
    const ended = told.current;
    return <Announce>{ended ? t("Nothing is frozen any more.") : ""}</Announce>;
  }
  if (now.value - since > TOLD_AFTER_MS) told.current = true;
  return (
    <>
      <a class="frozen-chip" href={href(["sessions", oldest.id])} title={t("Something is frozen: its session, and the way to thaw it")}>
        <Icon name="frozen" />
        <span><span class="word">{t("frozen")}</span> <span class="num">{coarse(Math.max(0, now.value - since))}</span></span>
      </a>
      <Announce>{told.current ? t("Something is frozen: {what}", { what: oldest.what.join(", ") }) : ""}</Announce>
    </>
  );
}

const STALE_MS = 15_000;

function Freshness() {
  const lost = contact.value.lostAt !== null;
  const [tone, icon, text]: [string, IconName, string] = lost
    ? ["bad", "warn", t("no contact")]
    : streaming.value
      ? ["ok", "ok", t("live")]
      : ["off", "running", t("polling")];
  const why = lost
    ? t("The daemon does not answer.")
    : streaming.value
      ? t("Changes arrive as they happen.")
      : t("The screen asks for changes every few seconds.");
  return <span class={`freshness ${tone}`} title={why}><Icon name={icon} /><span>{text}</span></span>;
}

/** What is shown was true at a time: this says when that is not now. */
function Stale() {
  const { at, lostAt } = contact.value;
  if (lostAt !== null) {
    return (
      <div class="note bad banner">
        <Icon name="warn" />
        <div>
          <strong role="alert">{t("No contact with the daemon.")}</strong>{" "}
          {t("What you see is from {time}, {span} ago. Trying again by itself.", { time: shortTime(at), span: coarse(Math.max(0, now.value - at)) })}
        </div>
        <Button small onClick={() => invalidate()}>{t("Try now")}</Button>
      </div>
    );
  }
  if (downSince.value !== null && now.value - downSince.value > STALE_MS) {
    return <div class="note warn banner"><Icon name="warn" /><div>{t("The stream of events is down; the screen is polled instead and may lag by some seconds.")}</div></div>;
  }
  return null;
}

function Running() {
  const known = useRunning().value;
  const running = known ?? [];
  return (
    <>
      <button type="button" class={`button ghost running-button ${running.length ? "has" : ""}`} popovertarget="running">
        <Icon name={running.length ? "running" : "jobs"} class={running.length ? "spin" : ""} />
        <span>{running.length ? tn(running.length, "{n} job", "{n} jobs") : known ? t("idle") : "…"}</span>
      </button>
      <div id="running" popover="auto" class="pop">
        <h2>{t("Running jobs")}</h2>
        {known && running.length === 0 && <p class="quiet">{ownOnly(login.value?.role) ? t("Nothing of yours runs.") : t("Nothing runs.")}</p>}
        <ul class="plain-list">
          {running.slice(0, 8).map((job) => (
            <li key={job.id}>
              <Link to={["jobs", job.id]} class="row-link">
                <span><strong>{job.operation}</strong> <span class="quiet">{phaseName(progressOf(job)?.phase)}</span></span>
                <JobBadge state={job.state} />
                <Time at={job.started_at ?? job.created_at} />
              </Link>
            </li>
          ))}
        </ul>
        <Link to={["jobs"]} query={{ state: "running" }}>{t("All running jobs")}</Link>
      </div>
    </>
  );
}

function Account() {
  const who = login.value;
  const [error, setError] = useState<ApiError | null>(null);
  if (!who) return null;
  const leave = (everywhere: boolean) => logOut(everywhere).catch((cause: ApiError) => setError(cause));
  return (
    <>
      <button type="button" class="button ghost" popovertarget="account" aria-label={t("Account of {name}", { name: who.principal })}>
        <Icon name="user" />
        <span class="who">{who.principal}</span>
      </button>
      <div id="account" popover="auto" class="pop">
        <h2>{who.principal}</h2>
        <p class="quiet">
          {t("Role")}: {t(who.role)}
          {who.scopes?.length ? <><br />{t("Scopes")}: {who.scopes.join(", ")}</> : null}
          <br />
          {t("Logged in until")} <Time at={who.expires_at} />
        </p>
        <div class="stack">
          <Button onClick={() => leave(false)}>{t("Log out")}</Button>
          <Button kind="ghost" onClick={() => leave(true)}>{t("Log out everywhere")}</Button>
        </div>
        <Trouble title={t("You are still logged in.")} error={error} />
      </div>
    </>
  );
}

const THEMES: [Theme, IconName, string][] = [["auto", "auto", "As the system"], ["light", "sun", "Light"], ["dark", "moon", "Dark"]];
const LANGUAGES: [Language, string][] = [["en", "English"], ["de", "Deutsch"]];

export function Preferences() {
  return (
    <div class="preferences">
      <div role="group" aria-label={t("Theme")} class="segmented">
        {THEMES.map(([key, icon, name]) => (
          <button key={key} type="button" aria-pressed={theme.value === key} title={t(name)} aria-label={t(name)} onClick={() => (theme.value = key)}>
            <Icon name={icon} />
          </button>
        ))}
      </div>
      <div role="group" aria-label={t("Language")} class="segmented">
        {LANGUAGES.map(([key, name]) => (
          <button key={key} type="button" lang={key} aria-pressed={language.value === key} onClick={() => (language.value = key)}>
            {name}
          </button>
        ))}
      </div>
    </div>
  );
}
