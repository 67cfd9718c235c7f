// Am I protected? What runs? Is anything frozen?
import { get, login } from "../api/client";
import type { ComponentChildren } from "preact";
import type { Backup, Writer } from "../api/types";
import { number, t, tn } from "../i18n";
import { can } from "../model/can";
import { judge, LATE_FACTOR, protects, type DayState, type LabelState, type Protection, type StripDay, type Verdict } from "../model/protection";
import { JobBadge, ownOnly } from "../model/states";
import { useReady, useRunning } from "../shell";
import { minute, now } from "../state/clock";
import { useData } from "../state/data";
import { progressOf } from "../state/live";
import { Badge, Button, Curl, Empty, GradeDot, Head, Link, Loading, Note, Panel, Time, Trouble } from "../ui/basics";
import { absolute, brief, bytes, coarse, day, phaseName, span } from "../ui/format";
import { Icon, type IconName } from "../ui/icon";
import { go } from "../state/route";
import { FrozenPanel } from "../ui/frozen";
import { useWalk } from "../ui/walk";

/** So many of each are read, and it says so where there are more. */
const MOST = 500;

/** Since when everything is known of a list, newest first, that may go on. */
const knownSince = (read: { created_at: string }[]): number => (read.length < MOST ? 0 : Date.parse(read[read.length - 1]!.created_at));

const useCatalog = () =>
  useData("overview/backups", async () => (await get("/backups", { query: { limit: MOST, fields: "id,label,complete,condition,created_at,bytes,components,freeze,consistency" } })).items, 10_000, ["backups"]);
const useAttempts = () =>
  useData("overview/sessions", async () => (await get("/sessions", { query: { kind: "backup", limit: MOST, fields: "id,kind,label,state,reason,created_at,frozen,hold" } })).items, 10_000, ["sessions"]);
const useWriters = () => useData("writers", async () => (await get("/writers")).items, 60_000, []);

export function Overview() {
  const backups = useCatalog();
  const sessions = useAttempts();
  const writers = useWriters();
  const error = backups.error ?? sessions.error ?? writers.error;
  const since = Math.max(knownSince(backups.value ?? []), knownSince(sessions.value ?? []));
  const state = backups.value && sessions.value ? judge(backups.value, sessions.value, writers.value ?? [], minute.value, since) : null;
  // what is wrong already is told at once; that nothing is wrong, only when everything has been looked at
  const waiting = !state || (state.verdict === "protected" && !writers.value && !writers.error);
  const operator = can("backupCreate");
  return (
    <>
      <Head title={t("Overview")}>
        {operator && <Button kind="main" icon="plus" onClick={() => go(["new"])}>{t("New backup")}</Button>}
      </Head>
      {error && error.status !== 0 && <Trouble error={error} />}
      <FrozenPanel sessions={sessions.value ?? []} />
      <Health />
      {waiting ? !error && <Loading /> : <Answer state={state} backups={backups.value!} since={since} writers={writers.value} blind={!writers.value && Boolean(writers.error)} />}
    </>
  );
}

/** What the daemon itself says is wrong, or soon will be. */
function Health() {
  const ready = useReady().value;
  if (!ready) return null;
  return (
    <>
      {!ready.ready && <Note tone="bad" icon="failed"><strong>{t("The daemon is not ready")}</strong>{": "}{ready.reasons.join("; ")}</Note>}
      {ready.warnings.length > 0 && <Note tone="warn" icon="warn">{ready.warnings.join("; ")}</Note>}
    </>
  );
}

const VERDICTS: Record<Exclude<Verdict, "none">, [string, IconName, string]> = {
  protected: ["ok", "ok", "Protected"],
  attention: ["warn", "warn", "Protected, with gaps"],
  unprotected: ["bad", "failed", "Not protected"],
};

/** blind: what the writers offer is not known, so that nobody can say whether all of it is backed up. */
function Answer({ state, backups, since, writers, blind }: { state: Protection; backups: Backup[]; since: number; writers: Writer[] | undefined; blind: boolean }) {
  const newest = backups.find(protects);
  return (
    <>
      {state.verdict === "none" ? <NothingYet writers={writers} /> : <Hero state={state} newest={newest} since={since} blind={blind} />}
      <div class="columns">
        <RunningPanel />
        {state.verdict !== "none" && <FreezeChart backups={backups} />}
      </div>
      {state.labels.length > 0 && <Labels labels={state.labels} capped={since > 0} />}
    </>
  );
}

/** The way to the first backup: what is there already, and what comes next. */
function NothingYet({ writers }: { writers: Writer[] | undefined }) {
  const repositories = useData("repositories", async () => (await get("/repositories")).items, 30_000).value;
  const offering = writers?.filter((one) => one.available).length ?? 0;
  const place = repositories?.[0]?.name;
  const step = (done: boolean, text: ComponentChildren) => <li class={done ? "done" : "todo"}><Icon name={done ? "ok" : "none"} /><span><span class="hidden">{done ? t("done") : t("not yet")}: </span>{text}</span></li>;
  return (
    <Empty icon="overview" title={t("Nothing is protected yet")}>
      <p>{t("No backup has been made. This is what it takes:")}</p>
      <ol class="first-steps">
        {step(Boolean(place), <Link to={["repositories"]}>{place ? t("A repository to store it in: {name}", { name: place }) : t("A repository to store it in: make one")}</Link>)}
        {step(offering > 0, <Link to={["writers"]}>{offering ? tn(offering, "One writer that brings its application to a consistent point", "{n} writers that bring applications to a consistent point") : t("Writers for your applications, or paths alone without one")}</Link>)}
        {step(false, t("The first backup: here, or with curl"))}
      </ol>
      <Curl verb="POST" path="/backups" body={{ paths: ["/srv/data"], repository: place ?? "main", label: "nightly" }} />
      {place
        ? can("backupCreate") && <p><Link to={["new"]} class="button main">{t("Make a backup")}</Link></p>
        : repositories && can("repositoryCreate") && <p><Link to={["repositories"]} class="button main">{t("Make a repository")}</Link></p>}
    </Empty>
  );
}

function reasons({ labels, uncovered }: Protection): string[] {
  const name = (label: LabelState): string => label.label ?? t("without a label");
  const found: string[] = [];
  for (const label of labels) {
    const unsound = label.unsound && t("The newest backup of “{label}” is damaged, or gone from its repository.", { label: name(label) });
    if (!label.lastGood) found.push(unsound ?? t("“{label}” has never ended well.", { label: name(label) }));
    else if (label.late) {
      const age = brief(minute.value - Date.parse(label.lastGood.created_at));
      found.push(
        label.usualMs === null || label.usualMs < 3_600_000
          ? t("“{label}” is late: its last good backup is {age} old.", { label: name(label), age })
          : t("“{label}” is late: its last good backup is {age} old, and it usually comes every {usual}.", { label: name(label), age, usual: brief(label.usualMs) }),
      );
    } else if (unsound) found.push(unsound);
    else if (label.failedSince) found.push(t("The newest attempt of “{label}” did not end well.", { label: name(label) }));
  }
  if (uncovered.length) {
    const names = uncovered.slice(0, 4).map(({ writer, component }) => (writer === component ? writer : `${writer}/${component}`)).join(", ");
    found.push(tn(uncovered.length, "One component is in no good backup:", "{n} components are in no good backup:") + " " + names + (uncovered.length > 4 ? " …" : "."));
  }
  return found;
}

/** What was not looked at: it may be wrong, and nobody would see it here. */
function limits(since: number, blind: boolean): string[] {
  const found: string[] = [];
  if (blind) found.push(t("What the writers offer could not be asked: whether all of it is backed up is not known."));
  if (since) found.push(t("Only the newest {n} backups and sessions are read: a label of which nothing came since {day} is not seen here.", { n: number(MOST), day: day(since) }));
  if (ownOnly(login.value?.role)) found.push(t(login.value?.role === "restorer" ? "Only your own sessions are judged." : "Only your own backups and sessions are judged."));
  return found;
}

function Hero({ state, newest, since, blind }: { state: Protection; newest: Backup | undefined; since: number; blind: boolean }) {
  const [tone, icon, title] = VERDICTS[blind && state.verdict === "protected" ? "attention" : (state.verdict as Exclude<Verdict, "none">)];
  const why = [...reasons(state), ...limits(since, blind)];
  return (
    <section class={`hero ${tone}`} aria-label={t("Protection")}>
      <Icon name={icon} />
      <div class="hero-text">
        <h2>{t(title)}</h2>
        {why.length ? (
          <ul>{why.map((reason) => <li key={reason}>{reason}</li>)}</ul>
        ) : (
          <p>{t("Every label has a good backup in time, and every component that a writer offers is in one.")}</p>
        )}
      </div>
      {newest && (
        <dl class="hero-facts">
          <div>
            <dt>{t("Last good backup")}</dt>
            <dd><Link to={["backups", newest.id]}><Time at={newest.created_at} /></Link></dd>
            <dd class="small quiet">{newest.label ?? t("without a label")} · {bytes(newest.bytes)}</dd>
          </div>
          {newest.freeze && (
            <div>
              <dt>{t("Its freeze window")}</dt>
              <dd>{span(newest.freeze.window_ms)}</dd>
              <dd class="small"><GradeDot grade={newest.consistency?.grade ?? null} /></dd>
            </div>
          )}
        </dl>
      )}
    </section>
  );
}

function RunningPanel() {
  const running = useRunning();
  const jobs = running.value ?? [];
  return (
    <Panel title={t("Running now")} aside={<Link to={["jobs"]} class="small">{t("All jobs")}</Link>}>
      {running.value && jobs.length === 0 && <p class="quiet none">{ownOnly(login.value?.role) ? t("Nothing of yours runs.") : t("Nothing runs.")}</p>}
      <ul class="plain-list">
        {jobs.slice(0, 6).map((job) => {
          const at = progressOf(job);
          const { bytes_done: done, bytes_total: total } = at ?? {};
          return (
            <li key={job.id}>
              <Link to={["jobs", job.id]} class="row-link">
                <span><strong>{job.operation}</strong> <span class="quiet">{phaseName(at?.phase)}</span></span>
                <span class="num quiet">{coarse(now.value - Date.parse(job.started_at ?? job.created_at))}</span>
                <JobBadge state={job.state} />
              </Link>
              {done !== undefined && total !== undefined && total > 0 && <progress max={total} value={done} aria-label={t("Progress of {name}", { name: job.operation })} />}
            </li>
          );
        })}
      </ul>
    </Panel>
  );
}

const DAYS: Record<DayState, string> = { unknown: "not read", none: "no backup", good: "good", mixed: "good, and one that failed", bad: "failed" };

function Strip({ days }: { days: StripDay[] }) {
  const good = days.filter((one) => one.good).length;
  const texts = days.map((one) => `${day(one.start)}: ${t(DAYS[one.state])}${one.good + one.bad > 1 ? ` (${one.good}/${one.good + one.bad})` : ""}`);
  const { at, list, item } = useWalk(texts);
  return (
    <div class="strip" {...list} aria-label={t("30 days: {good} with a good backup, {bad} with a failed one only", { good, bad: days.filter((one) => one.state === "bad").length })}>
      {days.map((one, i) => <span key={one.start} class={`day ${one.state} ${i === at ? "at" : ""}`} title={texts[i]!} {...item(i)} />)}
      {at !== null && <span class="tip" aria-hidden="true">{texts[at]}</span>}
    </div>
  );
}

function Labels({ labels, capped }: { labels: LabelState[]; capped: boolean }) {
  return (
    <Panel title={t("By label")} flush aside={<span class="small quiet strip-key"><span class="day good" /> {t("good")} <span class="day mixed" /> {t("both")} <span class="day bad" /> {t("failed")} <span class="day none" /> {t("none")}</span>}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("Label")}</th>
            <th scope="col">{t("Last good backup")}</th>
            <th scope="col" class="p3">{t("Freeze window")}</th>
            <th scope="col" class="p3 num">{t("Size")}</th>
            <th scope="col" class="p2 strip-col">{t("Last 30 days")}</th>
          </tr>
        </thead>
        <tbody>
          {labels.map((label) => (
            <tr key={label.label ?? ""}>
              <th scope="row">
                {label.label ?? <span class="quiet">{t("without a label")}</span>}
                <LabelBadge label={label} />
              </th>
              <td>
                {label.lastGood ? <Link to={["backups", label.lastGood.id]}><Time at={label.lastGood.created_at} /></Link> : <span class="quiet">{t("never")}</span>}
                {label.failedSince && <div class="small"><Link to={[label.failedSince.at, label.failedSince.id]}>{t("failed")} <Time at={label.failedSince.created_at} /></Link></div>}
                <div class="only-narrow"><Strip days={label.strip} /></div>
              </td>
              <td class="p3">{label.lastGood?.freeze ? span(label.lastGood.freeze.window_ms) : <span class="quiet">–</span>}</td>
              <td class="p3 num">{bytes(label.lastGood?.bytes)}</td>
              <td class="p2 strip-col"><Strip days={label.strip} /></td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="small quiet foot">
        {t("A label is late when its last good backup is older than {n} times its usual interval, a day at least.", { n: number(LATE_FACTOR) })}
        {capped && ` ${t("Only the newest {n} backups and sessions are counted.", { n: number(MOST) })}`}
      </p>
    </Panel>
  );
}

function LabelBadge({ label }: { label: LabelState }) {
  if (label.unsound) return <Badge tone="bad" icon="failed">{label.unsound.condition === "missing" ? t("newest is gone") : t("newest is damaged")}</Badge>;
  if (!label.lastGood) return <Badge tone="bad" icon="failed">{t("never good")}</Badge>;
  if (label.late) return <Badge tone="bad" icon="pending">{t("late")}</Badge>;
  if (label.failedSince) return <Badge tone="warn" icon="warn">{t("last one failed")}</Badge>;
  return <Badge tone="ok" icon="ok">{t("in time")}</Badge>;
}

const CHART = { width: 560, height: 132, left: 52, bottom: 18, top: 8 };
const SHOWN = 40;

/** A round number not below the value, for the axis. */
export function ceiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

function FreezeChart({ backups }: { backups: Backup[] }) {
  const shown = backups.filter((backup) => backup.freeze).slice(0, SHOWN).reverse();
  const most = ceiling(Math.max(...shown.map((backup) => backup.freeze!.window_ms), 1));
  const { width, height, left, bottom, top } = CHART;
  const inner = { width: width - left, height: height - bottom - top };
  const step = inner.width / Math.max(shown.length, 12);
  const [from, to] = [shown[0], shown[shown.length - 1]].map((one) => (one ? day(Date.parse(one.created_at)) : ""));
  const longest = Math.max(...shown.map((backup) => backup.freeze!.window_ms), 0);
  const texts = shown.map((backup) => `${backup.label ?? t("without a label")}, ${absolute(Date.parse(backup.created_at))}: ${span(backup.freeze!.window_ms)}`);
  const { at, list, item } = useWalk(texts, (i) => go(["backups", shown[i]!.id]));
  return (
    <Panel title={t("Freeze windows")} aside={<span class="small quiet">{at === null ? tn(shown.length, "the last one", "the last {n}") : texts[at]}</span>}>
      {shown.length === 0 ? (
        <p class="quiet none">{t("No backup with a freeze window yet.")}</p>
      ) : (
        <svg class="chart" viewBox={`0 0 ${width} ${height}`} {...list} aria-label={t("Freeze windows of the last {n} backups; the longest took {span}", { n: shown.length, span: span(longest) })}>
          <g aria-hidden="true">
            {[0, 0.5, 1].map((part) => (
              <g key={part}>
                <line x1={left} x2={width} y1={top + inner.height * (1 - part)} y2={top + inner.height * (1 - part)} class="grid" />
                <text x={left - 8} y={top + inner.height * (1 - part) + 4} text-anchor="end">{part ? span(most * part) : "0"}</text>
              </g>
            ))}
            <text x={left} y={height - 4}>{from}</text>
            {to !== from && <text x={Math.max(left + shown.length * step, left + inner.width / 2)} y={height - 4} text-anchor="end">{to}</text>}
          </g>
          {shown.map((backup, i) => {
            const tall = Math.max(2, (backup.freeze!.window_ms / most) * inner.height);
            return (
              <rect key={backup.id} {...item(i)} x={left + i * step + step * 0.15} width={step * 0.7} y={top + inner.height - tall} height={tall} rx="1.5" class={`bar ${backup.complete ? "" : "off"} ${i === at ? "at" : ""}`}>
                <title>{texts[i]}</title>
              </rect>
            );
          })}
        </svg>
      )}
    </Panel>
  );
}
