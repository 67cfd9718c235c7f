// New backup: choose, see the plan with its budget and its refusals, and only then run it.
import { useEffect, useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import { type BackupCreate, type BackupType, type Job, offered, type Plan } from "../api/types";
import { t, tn } from "../i18n";
import { can } from "../model/can";
import { useData } from "../state/data";
import { filter, go, route } from "../state/route";
import { Button, CopyButton, Curl, curl, Empty, Field, Head, lines, Link, Loading, Note, Panel, Trouble } from "../ui/basics";
import { bytes, span } from "../ui/format";
import { Icon } from "../ui/icon";
import { Budget } from "../ui/timeline";

const TYPES: BackupType[] = ["full", "incremental", "differential", "log", "copy"];
const PLAN_AFTER_MS = 600; // each is a call of its own in the audit trail

type Chosen = { writer: string; logical_path: string; name: string };

/** The body of POST /backups for what is chosen. */
export function bodyOf(chosen: Chosen[], paths: string, excludes: string, repository: string, type: BackupType, label: string, failure = "fail"): BackupCreate {
  return {
    repository,
    type,
    ...(chosen.length && { components: chosen }),
    ...(lines(paths).length && { paths: lines(paths) }),
    ...(lines(excludes).length && { excludes: lines(excludes) }),
    ...(label.trim() && { label: label.trim() }),
    ...(failure !== "fail" && { writer_failure: failure }),
  } as BackupCreate;
}

/** From a link, which anybody may have written. */
export function chosenOf(text: string | undefined): Chosen[] {
  try {
    const found: unknown = JSON.parse(text ?? "[]");
    const fits = (one: unknown): one is Chosen => ["writer", "logical_path", "name"].every((key) => typeof (one as Record<string, unknown> | null)?.[key] === "string");
    return Array.isArray(found) ? found.filter(fits).map(({ writer, logical_path, name }) => ({ writer, logical_path, name })) : [];
  } catch {
    return [];
  }
}

export function NewBackup() {
  const { query } = route.value;
  const writers = useData("writers", async () => (await get("/writers")).items, 60_000);
  const repositories = useData("repositories", async () => (await get("/repositories")).items, 60_000);
  const [chosen, choose] = useState<Chosen[]>(() => chosenOf(query.components));
  const [paths, setPaths] = useState(query.paths ?? "");
  const [excludes, setExcludes] = useState(query.excludes ?? "");
  const [repository, setRepository] = useState(query.repository ?? "");
  const [type, setType] = useState<BackupType>((query.type as BackupType | undefined) ?? "full");
  const [label, setLabel] = useState(query.label ?? "");
  const [failure, setFailure] = useState(query.failure === "report" ? "report" : "fail");
  const [plan, setPlan] = useState<{ body: string; plan: Plan | null; error: ApiError | null } | null>(null);
  const [error, setError] = useState<ApiError | null>(null);

  const target = repository || (repositories.value?.[0]?.name ?? "");
  const body = bodyOf(chosen, paths, excludes, target, type, label, failure);
  const asked = JSON.stringify(body);
  const something = Boolean((body.components?.length || body.paths?.length) && target);

  useEffect(() => {
    filter({ components: chosen.length ? JSON.stringify(chosen) : null, paths: paths || null, excludes: excludes || null, repository: repository || null, type: type === "full" ? null : type, label: label || null, failure: failure === "fail" ? null : failure });
  }, [chosen, paths, excludes, repository, type, label, failure]);
  useEffect(() => {
    if (!something) {
      setPlan(null);
      return;
    }
    let late = false;
    const timer = setTimeout(() => {
      call("post", "/backups", { body: { ...body, validate_only: true } }).then(
        (found) => late || setPlan({ body: asked, plan: found as Plan, error: null }),
        (cause: ApiError) => late || setPlan({ body: asked, plan: null, error: cause }),
      );
    }, PLAN_AFTER_MS);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [asked, something]);

  const current = plan?.body === asked ? plan : null;
  const refused = Boolean(current?.error || current?.plan?.refusals.length);
  const why = !can("backupCreate") ? t("Your role may not run backups.") : !something ? t("Choose a component or a path first.") : !current ? t("The plan is being made.") : refused ? t("The plan is refused: see why beside it.") : null;
  const start = async (): Promise<void> => {
    try {
      const job = (await call("post", "/backups", { body })) as Job;
      go(["jobs", job.id]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  const has = (one: Chosen): boolean => chosen.some((c) => c.writer === one.writer && c.name === one.name && c.logical_path === one.logical_path);
  const toggle = (one: Chosen, on: boolean): void => choose(on ? [...chosen, one] : chosen.filter((c) => !(c.writer === one.writer && c.name === one.name && c.logical_path === one.logical_path)));

  // the form is drawn once, whole: nothing moves under a hand that types already
  if (!(writers.value ?? writers.error) || !(repositories.value ?? repositories.error)) return <><Head title={t("New backup")} /><Loading /></>;
  return (
    <>
      <Head title={t("New backup")} lead={<span>{t("Nothing runs before the plan is good and you start it.")}</span>} />
      <Trouble error={error} />
      <div class="wizard">
        <div>
          <Panel title={t("What")}>
            {writers.error && <Trouble error={writers.error} />}
            <fieldset>
              <legend>{t("Components that writers offer")}</legend>
              {writers.value?.length === 0 && <p class="quiet">{t("No writer is configured. Paths can be backed up without one.")}</p>}
              {writers.value?.map((writer) => (
                <div class="pick" key={writer.name}>
                  {!writer.available && <p class="quiet"><strong>{writer.name}</strong> · {t("not available")}: {writer.reason}</p>}
                  {offered(writer).filter((one) => one.selectable).map((one) => {
                    const it = { writer: writer.name, logical_path: one.logical_path, name: one.name };
                    return (
                      <label class="check" key={`${one.logical_path}\\${one.name}`}>
                        <input type="checkbox" checked={has(it)} onChange={(event) => toggle(it, event.currentTarget.checked)} />
                        <span><strong>{writer.name}</strong> / {one.logical_path && `${one.logical_path}\\`}{one.name} <span class="quiet small">{one.caption || writer.type}</span></span>
                      </label>
                    );
                  })}
                </div>
              ))}
            </fieldset>
            <Field label={t("Paths, one a line")} hint={t("Directories of the daemon's host; they are as consistent as a snapshot makes them, without a writer.")}>
              {(id) => <textarea id={id} rows={2} spellcheck={false} placeholder="/srv/data" value={paths} onInput={(event) => setPaths(event.currentTarget.value)} />}
            </Field>
            <details open={Boolean(excludes)}>
              <summary>{t("Leave out")}</summary>
              <Field label={t("Excluded paths, one a line")} hint={t("A nested mount or subvolume has to be added or named here.")}>
                {(id) => <textarea id={id} rows={2} spellcheck={false} value={excludes} onInput={(event) => setExcludes(event.currentTarget.value)} />}
              </Field>
            </details>
          </Panel>
          <Panel title={t("Where to, and how")}>
            {repositories.value?.length === 0 && (
              <Empty icon="repositories" title={t("No repository yet")}>
                <p>{t("A backup needs a place to be stored in.")} <Link to={["repositories"]}>{t("Make a repository")}</Link></p>
              </Empty>
            )}
            <Field label={t("Repository")}>
              {(id) => (
                <select id={id} value={target} onChange={(event) => setRepository(event.currentTarget.value)}>
                  {repositories.value?.map((one) => <option key={one.name} value={one.name} selected={one.name === target}>{one.name} ({one.mover})</option>)}
                </select>
              )}
            </Field>
            <Field label={t("Type")}>
              {(id) => (
                <select id={id} value={type} onChange={(event) => setType(event.currentTarget.value as BackupType)}>
                  {TYPES.map((one) => <option key={one} value={one} selected={one === type}>{t(one)}</option>)}
                </select>
              )}
            </Field>
            <Field label={t("Label")} hint={t("Backups of one label are one series: the overview watches that it goes on.")}>
              {(id) => <input id={id} maxLength={256} placeholder="nightly" value={label} onInput={(event) => setLabel(event.currentTarget.value)} />}
            </Field>
            <Field label={t("When a writer fails")}>
              {(id) => (
                <select id={id} value={failure} onChange={(event) => setFailure(event.currentTarget.value)}>
                  <option value="fail" selected={failure === "fail"}>{t("the job fails")}</option>
                  <option value="report" selected={failure === "report"}>{t("the job goes on; the writer's status tells")}</option>
                </select>
              )}
            </Field>
          </Panel>
        </div>
        <aside>
          <Panel title={t("Plan")}>
            {!something && <p class="quiet">{t("Choose components or paths: the plan shows here what would be frozen, for how long, and what stands in the way.")}</p>}
            {something && !current && <Loading />}
            {current?.error && <Trouble error={current.error} title={t("This cannot be done.")} />}
            {current?.plan && <PlanView plan={current.plan} />}
            <div class="dialog-foot">
              {something && <CopyButton text={curl("POST", "/backups", body)}>{t("Copy as curl")}</CopyButton>}
              <Button kind="main" icon="play" why={why} onClick={start}>{t("Start the backup")}</Button>
            </div>
          </Panel>
          {something && <details><summary class="small">{t("The same with curl")}</summary><Curl verb="POST" path="/backups" body={body} /></details>}
        </aside>
      </div>
    </>
  );
}

function PlanView({ plan }: { plan: Plan }) {
  return (
    <>
      {plan.refusals.length > 0 ? (
        <Note tone="bad" icon="failed"><strong>{tn(plan.refusals.length, "Refused, for one reason", "Refused, for {n} reasons")}</strong></Note>
      ) : (
        <>
          <p class="quiet small">{t("Expected freeze window")}</p>
          <p class="big-figure">{span(plan.budget_ms)}</p>
          <Budget used={plan.budget_ms} limit={plan.limit_ms} />
        </>
      )}
      <ul class="plan-list">
        {plan.refusals.map((one) => <li key={one.rule + one.detail} class="refused"><Icon name="failed" /><span>{one.detail}<span class="quiet">{one.hint} <code>{one.hresult}</code></span></span></li>)}
        {plan.warnings.map((one) => <li key={one.rule + one.detail}><Icon name="warn" /><span>{one.detail}<span class="quiet">{one.hint}</span></span></li>)}
        {plan.volumes.map((one) => (
          <li key={one.path}>
            <Icon name="snapshots" />
            <span>
              <code>{one.path}</code>
              <span class="quiet">{one.provider ? t("snapshot by {provider}", { provider: one.provider }) : t("no provider")}{one.atomic ? `, ${t("atomic")}` : ""}</span>
            </span>
          </li>
        ))}
        {plan.freeze.map((one) => (
          <li key={one.superblock}>
            <Icon name="frozen" />
            <span>
              {t("freezes")} <code>{one.mount_point}</code> ({one.fs_type})
              <span class="quiet">{t("about {span}", { span: span(one.freeze_ms) })}, {t("{bytes} to be written", { bytes: bytes(one.dirty_bytes) })}</span>
            </span>
          </li>
        ))}
        {plan.freeze.length === 0 && plan.refusals.length === 0 && <li><Icon name="ok" /><span>{t("No file system is frozen; writers hold still by themselves.")}</span></li>}
        {plan.parked && <li><Icon name="warn" /><span>{t("The daemon's own store lies on what is frozen: calls that need it wait until the thaw.")}</span></li>}
      </ul>
    </>
  );
}
