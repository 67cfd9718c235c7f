// Snapshots that exist, and a look into one of them.
import { useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import { offers } from "../api/offers";
import type { Snapshot } from "../api/types";
import { t, tn } from "../i18n";
import { can } from "../model/can";
import { useData } from "../state/data";
import { useList } from "../state/list";
import { filter, go, route } from "../state/route";
import { Badge, Button, Check, Curl, Dialog, Empty, Facts, Field, Head, Id, Link, Loading, Panel, Sentinel, Time, Trouble } from "../ui/basics";
import { bytes, phrase, shortId } from "../ui/format";
import { Icon } from "../ui/icon";
import { Files, folderHere, type Source } from "./files";

export function Snapshots({ path }: { path: string[] }) {
  return path[0] ? <OneSnapshot id={path[0]} /> : <SnapshotList />;
}

function SnapshotList() {
  const { session = "", volume = "" } = route.value.query;
  const list = useList<Snapshot>(
    `snapshots/${session}/${volume}`,
    async (cursor) => get("/snapshots", { query: { limit: 100, cursor, session: session || undefined, volume: volume || undefined } as never }),
    8000,
    ["snapshots"],
  );
  return (
    <>
      <Head title={t("Snapshots")} lead={<span>{t("Those that exist now. Snapshots of the context backup go with their session.")}</span>} />
      {(session || volume) && (
        <div class="filters">
          {session && <Button small kind="ghost" icon="close" onClick={() => filter({ session: null })}>{t("Session {id}", { id: shortId(session) })}</Button>}
          {volume && <Button small kind="ghost" icon="close" onClick={() => filter({ volume: null })}>{volume}</Button>}
        </div>
      )}
      {list.error && list.error.status !== 0 && <Trouble error={list.error} />}
      {!list.items ? !list.error && <Loading /> : list.items.length === 0 ? (
        <Empty icon="snapshots" title={session || volume ? t("No snapshot matches") : t("No snapshots exist")}>
          <p>{t("A backup's snapshots are removed when its session ends. To keep some, make a session with a context that leaves them:")}</p>
          <Curl verb="POST" path="/sessions" body={{ kind: "backup", context: "app_rollback", label: "before-upgrade" }} />
        </Empty>
      ) : (
        <div class="panel flush sticky">
          <table>
            <caption class="hidden">{t("Snapshots, newest first")}</caption>
            <thead>
              <tr>
                <th scope="col">{t("Volume")}</th>
                <th scope="col">{t("Made")}</th>
                <th scope="col" class="p2">{t("Provider")}</th>
                <th scope="col" class="p3">{t("Context")}</th>
                <th scope="col" class="p2 num">{t("Size")}</th>
                <th scope="col" class="p3">{t("Exposed at")}</th>
              </tr>
            </thead>
            <tbody>
              {list.items.map((one) => (
                <tr key={one.id}>
                  <th scope="row"><Link to={["snapshots", one.id]}><code>{one.volume}</code></Link>{one.state === "deleting" && <Badge tone="warn" icon="warn">{t("half removed")}</Badge>}</th>
                  <td><Time at={one.created_at} /></td>
                  <td class="p2">{one.provider}</td>
                  <td class="p3">{phrase(one.context)}</td>
                  <td class="p2 num">{bytes(one.bytes)}</td>
                  <td class="p3">{one.exposed_path ? <code>{one.exposed_path}</code> : <span class="quiet">–</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {list.more ? <Sentinel key={list.items.length} onSeen={list.loadMore} /> : <p class="small quiet foot">{tn(list.items.length, "One snapshot.", "{n} snapshots.")}</p>}
        </div>
      )}
    </>
  );
}

function OneSnapshot({ id }: { id: string }) {
  const data = useData<Snapshot>(`snapshot/${id}`, () => get("/snapshots/{snapshot_id}", { params: { snapshot_id: id } }), 10_000, ["snapshots"]);
  const [error, setError] = useState<ApiError | null>(null);
  const [dialog, open] = useState<"delete" | "expose" | "revert" | null>(null);
  const [whole, setWhole] = useState(false);
  const [force, setForce] = useState(false);
  const siblings = useData(data.value ? `snapshot-set/${data.value.set_id}` : null, async () => (await get("/snapshots", { query: { session: data.value!.session_id, limit: 100 } })).items.filter((one) => one.set_id === data.value!.set_id), 30_000, ["snapshots"]).value ?? [];
  const back = { to: ["snapshots"], name: t("Snapshots") };
  const snapshot = data.value;
  if (!snapshot) {
    return (
      <>
        <Head title={t("Snapshot")} back={back} />
        {data.error ? <Trouble error={data.error} /> : <Loading />}
      </>
    );
  }
  const params = { snapshot_id: id };
  const act = async (run: () => Promise<unknown>, then?: () => void): Promise<void> => {
    open(null);
    try {
      await run();
      setError(null);
      if (then) return then(); // elsewhere: here is nothing left to be asked for
    } catch (cause) {
      setError(cause as ApiError);
    }
    await data.refresh();
  };
  /** One, or all of its set; what is exposed, or lies outside of this host, only by force. */
  const remove = (all: boolean): Promise<unknown> => {
    const query = (all ? siblings : [snapshot]).some((one) => one.exposed_path || one.outside_id) ? { force: true } : {};
    return all ? call("delete", "/snapshot-sets/{set_id}", { params: { set_id: snapshot.set_id }, query }) : call("delete", "/snapshots/{snapshot_id}", { params, query });
  };
  const persistent = snapshot.attributes.includes("persistent");
  const exposeWhy = persistent ? null : t("Only snapshots of a context that keeps them can be exposed.");
  return (
    <>
      <Head title={snapshot.volume} back={back} lead={<><span>{snapshot.provider}</span><Time at={snapshot.created_at} /><span>{bytes(snapshot.bytes)}</span></>}>
        {can(snapshot.exposed_path ? "snapshotUnexpose" : "snapshotExpose") && (snapshot.exposed_path
          ? <Button onClick={() => act(() => call("delete", "/snapshots/{snapshot_id}/exposure", { params }))}>{t("Unexpose")}</Button>
          : <Button icon="folder" why={exposeWhy} onClick={() => open("expose")}>{t("Expose")}</Button>)}
        {can("snapshotRevert") && <Button why={!persistent ? t("Only snapshots of a context that keeps them can be reverted to.") : snapshot.provider !== "btrfs" ? t("Only the provider btrfs can revert.") : null} onClick={() => open("revert")}>{t("Revert")}</Button>}
        {can("snapshotDelete") && <Button kind="danger" icon="trash" onClick={() => open("delete")}>{t("Delete")}</Button>}
      </Head>
      <Trouble error={error} />
      <Panel title={t("Facts")}>
        <Facts
          items={[
            [t("Context"), phrase(snapshot.context)],
            [t("Attributes"), snapshot.attributes.map(phrase).join(", ")],
            [t("Exposed at"), snapshot.exposed_path && <code>{snapshot.exposed_path}</code>],
            [t("Session"), <Link to={["sessions", snapshot.session_id]}>{shortId(snapshot.session_id)}</Link>],
            [t("Snapshot set"), <>{shortId(snapshot.set_id)} <span class="quiet">{tn(Math.max(1, siblings.length), "of one volume", "of {n} volumes")}</span></>],
            [t("Host"), snapshot.node],
            [t("Name outside"), snapshot.outside_id],
            [t("Id"), <Id id={snapshot.id} />],
          ]}
        />
      </Panel>
      {can("snapshotFiles") && <Content snapshot={snapshot} />}
      {dialog === "delete" && (
        <Dialog title={t("Delete this snapshot?")} onClose={() => open(null)}>
          <p>{t("What only this snapshot holds is gone then. Backups made from it stay.")}</p>
          {snapshot.exposed_path && <p>{t("It is exposed at {path}: it is unexposed first.", { path: snapshot.exposed_path })}</p>}
          {snapshot.outside_id && <p>{t("It was taken outside of this host: it is only forgotten here, and stays there.")}</p>}
          {siblings.length > 1 && (
            <>
              <Check checked={whole} onChange={setWhole}>{tn(siblings.length, "All of its snapshot set ({n})", "All {n} of its snapshot set")}</Check>
              {whole && <ul>{siblings.map((one) => <li key={one.id}><code>{one.volume}</code>{one.exposed_path && <span class="quiet"> {t("exposed at {path}", { path: one.exposed_path })}</span>}</li>)}</ul>}
            </>
          )}
          <div class="dialog-foot">
            <Button onClick={() => open(null)}>{t("Keep it")}</Button>
            <Button kind="danger" icon="trash" onClick={() => act(() => remove(whole), () => go(["snapshots"]))}>{t("Delete the snapshot")}</Button>
          </div>
        </Dialog>
      )}
      {dialog === "revert" && (
        <Dialog title={t("Revert the volume to this snapshot?")} onClose={() => open(null)}>
          <p>{t("{volume} becomes what it was then, in one step. What it holds now is gone, and it cannot be cancelled.", { volume: snapshot.volume })}</p>
          <Check checked={force} onChange={setForce}>{t("Even while processes use it: they keep the old files, which nobody else sees any more")}</Check>
          <div class="dialog-foot">
            <Button onClick={() => open(null)}>{t("Back")}</Button>
            <Button kind="danger" onClick={() => act(async () => go(["jobs", (await call("post", "/snapshots/{snapshot_id}/revert", { params, body: { force } }) as { id: string }).id]))}>{t("Revert")}</Button>
          </div>
        </Dialog>
      )}
      {dialog === "expose" && <Expose onClose={() => open(null)} expose={(path) => act(() => call("post", "/snapshots/{snapshot_id}/exposure", { params, body: { path } }))} />}
    </>
  );
}

function Expose({ onClose, expose }: { onClose: () => void; expose: (path: string) => Promise<void> }) {
  const [path, setPath] = useState("");
  return (
    <Dialog title={t("Expose the snapshot")} onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); if (path.trim()) void expose(path.trim()); }}>
        <Field label={t("Directory")} hint={t("An empty directory beneath one of the configured expose.roots; the snapshot is mounted there read-only.")}>
          {(id) => <input id={id} required placeholder="/mnt/x" value={path} onInput={(event) => setPath(event.currentTarget.value)} />}
        </Field>
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Back")}</Button>
          <Button kind="main" type="submit">{t("Expose")}</Button>
        </div>
      </form>
    </Dialog>
  );
}

function Content({ snapshot }: { snapshot: Snapshot }) {
  const source: Source = {
    name: snapshot.volume,
    read: (path, cursor) => get("/snapshots/{snapshot_id}/files", { params: { snapshot_id: snapshot.id }, query: { path, limit: 200, cursor } as never }),
  };
  const path = folderHere(source);
  const archive = (format: "tar" | "tar.zst"): string => `/snapshots/${snapshot.id}/archive?path=${encodeURIComponent(path)}&format=${format}`;
  return (
    <Panel title={t("Files in it")} flush aside={offers.archive && can("snapshotArchive") ? (
      <span class="actions">
        <a class="button small" download="" href={archive("tar")}><Icon name="download" />{t("Download this folder (tar)")}</a>
        <a class="button small" download="" href={archive("tar.zst")}><Icon name="download" />tar.zst</a>
      </span>
    ) : undefined}>
      <Files id={snapshot.id} source={source} />
    </Panel>
  );
}
