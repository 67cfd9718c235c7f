// Repositories: where backups lie. Making, forgetting and scanning one is the administrator's.
import { useState } from "preact/hooks";
import { type ApiError, call, get } from "../api/client";
import type { Job, PlugIn, Repository } from "../api/types";
import { t } from "../i18n";
import { can } from "../model/can";
import { AvailableBadge } from "../model/states";
import { useData } from "../state/data";
import { go } from "../state/route";
import { Button, Curl, Dialog, Empty, Field, Head, Link, Loading, Trouble } from "../ui/basics";

export function Repositories() {
  const data = useData("repositories", async () => (await get("/repositories")).items, 30_000);
  const movers = useData("movers", async () => (await get("/movers")).items, 60_000).value ?? [];
  const [error, setError] = useState<ApiError | null>(null);
  const [dialog, open] = useState<"new" | Repository | null>(null);
  const [changing, change] = useState<Repository | null>(null);
  const scan = async (name: string): Promise<void> => {
    try {
      go(["jobs", ((await call("post", "/repositories/{name}/scan", { params: { name } })) as Job).id]);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  /** What is about to be forgotten or changed is looked at first: its ETag guards it. */
  const look = async (one: Repository, then: (found: Repository) => void): Promise<void> => {
    try {
      then(await get("/repositories/{name}", { params: { name: one.name } }));
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  const forget = async (name: string): Promise<void> => {
    open(null);
    try {
      await call("delete", "/repositories/{name}", { params: { name }, guarded: true });
      setError(null);
    } catch (cause) {
      setError(cause as ApiError);
    }
    await data.refresh();
  };
  return (
    <>
      <Head title={t("Repositories")} lead={<span>{t("Where backups are stored.")}</span>}>
        {can("repositoryCreate") && <Button kind="main" icon="plus" onClick={() => open("new")}>{t("New repository")}</Button>}
      </Head>
      <Trouble error={error ?? data.error} />
      {!data.value ? !data.error && <Loading /> : data.value.length === 0 ? (
        <Empty icon="repositories" title={t("No repository yet")}>
          <p>{t("Make one here, in the configuration file, or with curl:")}</p>
          <Curl verb="POST" path="/repositories" body={{ name: "main", mover: "archive", path: "/srv/backups" }} />
        </Empty>
      ) : (
        <div class="panel flush">
          <table>
            <thead><tr><th scope="col">{t("Name")}</th><th scope="col">{t("Place")}</th><th scope="col" class="p2">{t("Mover")}</th><th scope="col"><span class="hidden">{t("Actions")}</span></th></tr></thead>
            <tbody>
              {data.value.map((one) => (
                <tr key={one.name}>
                  <th scope="row"><Link to={["backups"]} query={{ repository: one.name }}>{one.name}</Link></th>
                  <td><code>{one.path ?? one.url ?? one.url_file ?? "–"}</code></td>
                  <td class="p2">{one.mover}<Unavailable mover={movers.find((mover) => mover.name === one.mover)} /></td>
                  <td class="actions-cell">
                    {can("repositoryScan") && <Button small kind="ghost" onClick={() => scan(one.name)} label={t("Scan {name}", { name: one.name })}>{t("Scan")}</Button>}
                    {can("repositoryPut") && <Button small kind="ghost" onClick={() => look(one, change)} label={t("Change {name}", { name: one.name })}>{t("Change")}</Button>}
                    {can("repositoryDelete") && <Button small kind="ghost" icon="trash" onClick={() => look(one, open)} label={t("Forget {name}", { name: one.name })}>{t("Forget")}</Button>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {dialog === "new" && <Settings of={null} onClose={() => open(null)} onDone={data.refresh} />}
      {changing && <Settings of={changing} onClose={() => change(null)} onDone={data.refresh} />}
      {dialog && dialog !== "new" && (
        <Dialog title={t("Forget {name}?", { name: dialog.name })} onClose={() => open(null)}>
          <p>{t("The stored data stays where it is; the backups leave this list of places. A scan of the same place finds them again.")}</p>
          <div class="dialog-foot">
            <Button onClick={() => open(null)}>{t("Keep it")}</Button>
            <Button kind="danger" onClick={() => forget(dialog.name)}>{t("Forget it")}</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** Nothing can be stored or read there while its mover does not work. */
function Unavailable({ mover }: { mover: PlugIn | undefined }) {
  return mover && !mover.available ? <div class="small"><AvailableBadge available={false} /> {mover.reason}</div> : null;
}

/** A new one, or what may be changed of one that is there: all but its name. */
function Settings({ of, onClose, onDone }: { of: Repository | null; onClose: () => void; onDone: () => Promise<void> }) {
  const movers = useData("movers", async () => (await get("/movers")).items, 60_000);
  const [name, setName] = useState(of?.name ?? "");
  const [mover, setMover] = useState(of?.mover ?? "archive");
  const [place, setPlace] = useState(of?.path ?? of?.url ?? of?.url_file ?? "");
  const [password, setPassword] = useState(of?.password_file ?? "");
  const [ioClass, setIoClass] = useState<string>(of?.limits?.io_class ?? "");
  const [rate, setRate] = useState(of?.limits?.bandwidth_bytes_per_second ? String(of.limits.bandwidth_bytes_per_second / 1024) : "");
  const [error, setError] = useState<ApiError | null>(null);
  const url = place.includes(":") && !place.startsWith("/");
  const create = async (): Promise<void> => {
    try {
      const same = of?.mover === mover ? of : null; // what has no field here stays as it is
      const where = same?.url_file === place ? { url_file: place } : url ? { url: place } : { path: place };
      const limits: NonNullable<Repository["limits"]> = { ...of?.limits };
      delete limits.io_class;
      delete limits.bandwidth_bytes_per_second;
      if (ioClass === "idle") delete limits.io_priority;
      if (ioClass) limits.io_class = ioClass as "idle" | "best-effort";
      if (rate) limits.bandwidth_bytes_per_second = Math.round(Number(rate) * 1024);
      const settings = {
        mover, ...where,
        ...(Object.keys(limits).length > 0 && { limits }),
        ...(password && { password_file: password }),
        ...(same?.base_dir && { base_dir: same.base_dir }),
        ...(same?.lock_wait_seconds !== undefined && { lock_wait_seconds: same.lock_wait_seconds }),
      };
      if (of) await call("put", "/repositories/{name}", { params: { name }, body: settings, guarded: true });
      else await call("post", "/repositories", { body: { name, ...settings } });
      await onDone();
      onClose();
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <Dialog title={of ? t("Change {name}", { name }) : t("New repository")} onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); void create(); }}>
        <Field label={t("Name")}>{(id) => <input id={id} required readOnly={Boolean(of)} maxLength={64} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>
        <Field label={t("Mover")}>
          {(id) => (
            <select id={id} value={mover} onChange={(event) => setMover(event.currentTarget.value)}>
              {movers.value?.map((one) => <option key={one.name} value={one.name} selected={one.name === mover} disabled={!one.available}>{one.name}: {one.available ? one.title : one.reason}</option>)}
            </select>
          )}
        </Field>
        <Field label={t("Place")} hint={t("A directory of the daemon's host, or an address that the mover understands.")}>{(id) => <input id={id} required placeholder="/srv/backups" value={place} onInput={(event) => setPlace(event.currentTarget.value)} />}</Field>
        <Field label={t("Password file")} hint={t("Only its path is kept here, never the password.")}>{(id) => <input id={id} value={password} onInput={(event) => setPassword(event.currentTarget.value)} />}</Field>
        <Field label={t("Disk priority of copies")}>
          {(id) => (
            <select id={id} value={ioClass} onChange={(event) => setIoClass(event.currentTarget.value)}>
              <option value="" selected={ioClass === ""}>{t("As every program")}</option>
              <option value="best-effort" selected={ioClass === "best-effort"}>best-effort</option>
              <option value="idle" selected={ioClass === "idle"}>{t("Idle: only when nobody else wants the disk")}</option>
            </select>
          )}
        </Field>
        <Field label={t("At most, in KiB per second")}>{(id) => <input id={id} type="number" min={1} step="any" value={rate} onInput={(event) => setRate(event.currentTarget.value)} />}</Field>
        {of && <p class="small quiet">{t("It is opened with the new settings first; only then they hold. One of the configuration file is changed there.")}</p>}
        <Trouble error={error} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Back")}</Button>
          <Button kind="main" type="submit">{of ? t("Change it") : t("Make the repository")}</Button>
        </div>
      </form>
    </Dialog>
  );
}
