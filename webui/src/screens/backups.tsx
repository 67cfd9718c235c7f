// The catalog: what was backed up, how consistent it is, and the ways back: restore, verify.
import { useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import type { Backup, Job } from "../api/types";
import { number, t, tn } from "../i18n";
import { can } from "../model/can";
import { CompleteBadge, ConditionBadge, GradeBadge } from "../model/states";
import { lacks, unsound } from "../model/protection";
import { useData } from "../state/data";
import { useList } from "../state/list";
import { filter, go, route } from "../state/route";
import { Badge, Button, Curl, Dialog, Empty, Facts, Head, Id, Link, Loading, Note, Panel, Sentinel, Time, Trouble } from "../ui/basics";
import { absolute, bytes, shortId, span } from "../ui/format";
import { Timeline } from "../ui/timeline";
import { Content, Restore, useBackup } from "./restore";

export function Backups({ path }: { path: string[] }) {
  return path[0] ? path[1] === "restore" ? <Restore id={path[0]} /> : path[1] === "files" ? <Content id={path[0]} /> : <OneBackup id={path[0]} /> : <BackupList />;
}

function BackupList() {
  const { label = "", repository = "", shown = "" } = route.value.query;
  const list = useList<Backup>(
    `backups/${label}/${repository}`,
    async (cursor) => get("/backups", { query: { limit: 100, cursor, label: label || undefined, repository: repository || undefined } as never }),
    10_000,
    ["backups"],
  );
  const known = useData("backups/known", async () => (await get("/backups", { query: { limit: 500, fields: "label,repository" } })).items, 60_000, ["backups"]).value ?? [];
  const items = list.items?.filter((one) => !shown || String(one.complete) === shown);
  const labels = [...new Set([...known.map((one) => one.label ?? ""), label])].filter(Boolean).sort();
  const repositories = [...new Set([...known.map((one) => one.repository), repository])].filter(Boolean).sort();
  return (
    <>
      <Head title={t("Backups")} lead={<span>{t("What lies in the repositories, and how far it can be trusted.")}</span>}>
        {can("backupCreate") && <Button kind="main" icon="plus" onClick={() => go(["new"])}>{t("New backup")}</Button>}
      </Head>
      {list.error && list.error.status !== 0 && <Trouble error={list.error} />}
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 && !label && !repository ? (
        <Empty icon="backups" title={t("No backups yet")}>
          <p>{t("What a backup job stores appears here, and what a scan of a repository finds.")}</p>
          <Curl verb="POST" path="/backups" body={{ paths: ["/srv/data"], repository: "main", label: "nightly" }} />
        </Empty>
      ) : (
        <>
          <div class="filters">
            <Filter name="label" title={t("Label")} value={label} options={labels} />
            <Filter name="repository" title={t("Repository")} value={repository} options={repositories} />
            <Filter name="shown" title={t("State")} value={shown} options={["true", "false"]} names={{ true: t("complete"), false: t("incomplete") }} />
          </div>
          <div class="panel flush sticky">
            <table>
              <caption class="hidden">{t("Backups, newest first")}</caption>
              <thead>
                <tr>
                  <th scope="col">{t("Label")}</th>
                  <th scope="col">{t("Made")}</th>
                  <th scope="col">{t("State")}</th>
                  <th scope="col" class="p2">{t("Grade")}</th>
                  <th scope="col" class="p3 num">{t("Freeze window")}</th>
                  <th scope="col" class="p2 num">{t("Size")}</th>
                  <th scope="col" class="p3">{t("Repository")}</th>
                </tr>
              </thead>
              <tbody>
                {items!.map((backup) => (
                  <tr key={backup.id}>
                    <th scope="row"><Link to={["backups", backup.id]}>{backup.label ?? shortId(backup.id)}</Link></th>
                    <td><Time at={backup.created_at} /></td>
                    <td class="badges"><CompleteBadge complete={backup.complete} />{lacks(backup) && <LacksBadge />}<ConditionBadge condition={backup.condition} /></td>
                    <td class="p2"><GradeBadge grade={backup.consistency?.grade} /></td>
                    <td class="p3 num">{backup.freeze ? span(backup.freeze.window_ms) : "–"}</td>
                    <td class="p2 num">{bytes(backup.bytes)}</td>
                    <td class="p3">{backup.repository}</td>
                  </tr>
                ))}
              </tbody>
            </table>
            {list.more ? <Sentinel key={list.items.length} onSeen={list.loadMore} /> : <p class="small quiet foot">{tn(items!.length, "One backup.", "{n} backups.")}</p>}
          </div>
        </>
      )}
    </>
  );
}

function Filter({ name, title, value, options, names = {} }: { name: string; title: string; value: string; options: string[]; names?: Record<string, string> }) {
  return (
    <div class="choice">
      <label for={`filter-${name}`}>{title}</label>
      <select id={`filter-${name}`} value={value} onChange={(event) => filter({ [name]: event.currentTarget.value })}>
        <option value="" selected={!value}>{t("any")}</option>
        {options.map((one) => <option key={one} value={one} selected={one === value}>{names[one] ?? one}</option>)}
      </select>
    </div>
  );
}

/** BackupComplete was reached, and yet something is missing: docs/monitoring.md, "Am I protected?". */
const LacksBadge = () => <Badge tone="warn" icon="warn">{t("not all of it")}</Badge>;

function OneBackup({ id }: { id: string }) {
  const data = useBackup(id);
  const snapshots = useData(data.value?.session_id ? `snapshots/of/${data.value.session_id}` : null, async () => (await get("/snapshots", { query: { session: data.value!.session_id!, limit: 50 } })).items, 30_000, ["snapshots"]);
  const [error, setError] = useState<ApiError | null>(null);
  const [removing, remove] = useState(false);
  const back = { to: ["backups"], name: t("Backups") };
  const backup = data.value;
  if (!backup) {
    return (
      <>
        <Head title={t("Backup")} back={back} />
        {data.error ? <Trouble error={data.error} /> : <Loading />}
      </>
    );
  }
  const verify = async (): Promise<void> => {
    try {
      go(["jobs", ((await call("post", "/backups/{backup_id}/verify", { params: { backup_id: id } })) as Job).id]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  /** The other way back: verb by verb, with the writers. */
  const session = async (): Promise<void> => {
    try {
      const made = await call("post", "/sessions", { body: { kind: "restore", backup_id: id, ...(backup.label && { label: backup.label }), ...(!backup.complete && { accept_incomplete: true }) } });
      go(["sessions", made.id]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  const erase = async (): Promise<void> => {
    try {
      const job = (await call("delete", "/backups/{backup_id}", { params: { backup_id: id } })) as Job | undefined;
      go(job ? ["jobs", job.id] : ["backups"]);
    } catch (cause) {
      setError(cause as ApiError);
      remove(false);
    }
  };
  return (
    <>
      <Head title={backup.label ?? t("Backup {id}", { id: shortId(backup.id) })} back={back} lead={<><CompleteBadge complete={backup.complete} />{lacks(backup) && <LacksBadge />}<ConditionBadge condition={backup.condition} /><GradeBadge grade={backup.consistency?.grade} /><Time at={backup.created_at} /><span>{bytes(backup.bytes)}</span></>}>
        {can("backupRestore") && <Button kind="main" onClick={() => go(["backups", id, "restore"])}>{t("Restore")}</Button>}
        {can("jobRestoreFiles") && can("sessionCreate") && backup.components.length > 0 && <Button onClick={session}>{t("Restore with its writers")}</Button>}
        {can("backupFiles") && <Button icon="folder" onClick={() => go(["backups", id, "files"])}>{t("Files")}</Button>}
        {can("backupVerify") && <Button icon="ok" onClick={verify}>{t("Verify")}</Button>}
        {can("backupDelete") && <Button kind="danger" icon="trash" onClick={() => remove(true)}>{t("Delete")}</Button>}
      </Head>
      <Trouble error={error} />
      {!backup.complete && (
        <Note tone="warn" icon="warn">
          <strong>{t("This backup is not complete.")}</strong> {backup.reason}
          <p>{t("What was copied is kept; restoring it has to accept that.")}</p>
        </Note>
      )}
      {lacks(backup) && (
        <Note tone="warn" icon="warn">
          <strong>{t("This backup does not hold all that was chosen.")}</strong>{" "}
          {backup.files === 0 ? t("There is no file in it.") : t("Whoever made it did not report these as copied: {names}.", { names: backup.components.filter((one) => one.succeeded === false).map((one) => `${one.writer} / ${one.name}`).join(", ") })}
          <p>{t("It does not count as protection.")}</p>
        </Note>
      )}
      {unsound(backup) && (
        <Note tone="bad" icon="failed">
          <strong>{backup.condition === "missing" ? t("This backup is gone from its repository.") : t("This backup is damaged.")}</strong> {backup.condition_reason}
        </Note>
      )}
      <Panel title={t("Facts")}>
        <Facts
          items={[
            [t("Repository"), <Link to={["repositories"]}>{backup.repository}</Link>],
            [t("Type"), backup.type && t(backup.type)],
            [t("Files"), backup.files === null ? null : number(backup.files)],
            [t("Bytes"), bytes(backup.bytes)],
            [t("Made at"), absolute(Date.parse(backup.created_at))],
            [t("Checked"), backup.checked_at ? absolute(Date.parse(backup.checked_at)) : t("never")],
            [t("One instant"), backup.consistency && (backup.consistency.one_instant ? t("yes, all of it shows the same moment") : t("no"))],
            [t("Told in the repository"), backup.sealed ? <Badge tone="ok" icon="ok">{t("yes")}</Badge> : <Badge tone="warn" icon="pending">{t("not yet")}</Badge>],
            [t("Session"), backup.session_id && <Link to={["sessions", backup.session_id]}>{shortId(backup.session_id)}</Link>],
            [t("Id"), <Id id={backup.id} />],
          ]}
        />
      </Panel>
      {backup.freeze && (
        <Panel title={t("Quiesce timeline")}>
          <Timeline window={backup.freeze} components={backup.components} />
        </Panel>
      )}
      {backup.components.length > 0 && (
        <Panel title={t("Components")} flush>
          <table>
            <thead><tr><th scope="col">{t("Component")}</th><th scope="col">{t("Grade")}</th><th scope="col" class="p2">{t("Why")}</th><th scope="col" class="p3">{t("Stamp")}</th></tr></thead>
            <tbody>
              {backup.components.map((one) => (
                <tr key={one.id}>
                  <th scope="row">{one.writer} / {one.name}<div class="small quiet">{one.type}</div>{one.succeeded === false && <Badge tone="bad" icon="failed">{t("not reported as copied")}</Badge>}</th>
                  <td><GradeBadge grade={one.grade} /></td>
                  <td class="p2 quiet">{one.grade_reason}</td>
                  <td class="p3"><code class="small">{one.backup_stamp ?? "–"}</code></td>
                </tr>
              ))}
            </tbody>
          </table>
        </Panel>
      )}
      {Boolean(backup.consistency?.paths.length) && (
        <Panel title={t("Paths")} flush>
          <table>
            <tbody>
              {backup.consistency!.paths.map((one) => <tr key={one.path}><th scope="row"><code>{one.path}</code></th><td><GradeBadge grade={one.grade} /></td><td class="p2 quiet">{one.reason}</td></tr>)}
            </tbody>
          </table>
        </Panel>
      )}
      {Boolean(snapshots.value?.length) && (
        <Panel title={t("Snapshots of its session")}>
          <ul class="plain-list">{snapshots.value!.map((one) => <li key={one.id}><Link to={["snapshots", one.id]} class="row-link"><code>{one.volume}</code><span class="quiet">{one.provider}</span></Link></li>)}</ul>
        </Panel>
      )}
      {removing && (
        <Dialog title={t("Delete this backup?")} onClose={() => remove(false)}>
          <p>{t("The stored data is removed from the repository, and then the entry here. It cannot be brought back.")}</p>
          <Facts items={[[t("Label"), backup.label], [t("Made at"), absolute(Date.parse(backup.created_at))], [t("Bytes"), bytes(backup.bytes)]]} />
          <div class="dialog-foot">
            <Button onClick={() => remove(false)}>{t("Keep it")}</Button>
            <Button kind="danger" icon="trash" onClick={erase}>{t("Delete the backup")}</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
