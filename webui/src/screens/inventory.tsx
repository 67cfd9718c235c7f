// What is there: writers with what they offer; providers, movers and volumes, and why one cannot work here.
import { useState } from "preact/hooks";
import { type ApiError, get } from "../api/client";
import type { components } from "../api/contract";
import { offered } from "../api/types";
import { t, tn } from "../i18n";
import { can } from "../model/can";
import { AvailableBadge } from "../model/states";
import { useData } from "../state/data";
import { Button, Curl, Empty, Facts, Field, Head, Id, Link, Loading, Panel, Trouble } from "../ui/basics";

export function Writers() {
  const writers = useData("writers", async () => (await get("/writers")).items, 60_000);
  return (
    <>
      <Head title={t("Writers")} lead={<span>{t("They bring applications to a consistent point. They are set up in the configuration file.")}</span>} />
      <Trouble error={writers.error} />
      {!writers.value && !writers.error && <Loading />}
      {writers.value?.length === 0 && (
        <Empty icon="writers" title={t("No writer is configured")}>
          <p>{t("Name your applications in the configuration, and reload the daemon with SIGHUP:")}</p>
          <pre class="document" tabIndex={0}>{"writers:\n  - {name: app, type: sqlite, databases: [/srv/app/app.db]}\n  - {name: pg-main, type: postgresql, connection: \"host=/run/postgresql dbname=postgres\", user: postgres}"}</pre>
          <Curl verb="GET" path="/writers" />
        </Empty>
      )}
      {writers.value?.map((writer) => (
        <Panel key={writer.name} title={writer.name} flush aside={<span><span class="quiet small">{writer.type}</span> <AvailableBadge available={writer.available} /></span>}>
          {!writer.available && <p class="foot">{writer.reason}</p>}
          {offered(writer).length > 0 && (
            <table>
              <thead><tr><th scope="col">{t("Component")}</th><th scope="col" class="p2">{t("Type")}</th><th scope="col">{t("Files")}</th></tr></thead>
              <tbody>
                {offered(writer).map((one) => (
                  <tr key={`${one.logical_path}/${one.name}`}>
                    <th scope="row">
                      {one.selectable && can("backupCreate") ? (
                        <Link to={["new"]} query={{ components: JSON.stringify([{ writer: writer.name, logical_path: one.logical_path, name: one.name }]) }} title={t("Back this component up")}>{one.logical_path && `${one.logical_path}\\`}{one.name}</Link>
                      ) : <>{one.logical_path && `${one.logical_path}\\`}{one.name}</>}
                      <div class="small quiet">{one.caption}</div>
                    </th>
                    <td class="p2">{one.type}</td>
                    <td>{one.file_sets.slice(0, 6).map((set) => <div key={set.path + set.spec}><code class="small">{set.path}/{set.spec}{set.recursive ? " …" : ""}</code></div>)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          {writer.instance_id && <p class="small foot"><Id id={writer.instance_id} /></p>}
        </Panel>
      ))}
    </>
  );
}

export function Providers() {
  const found = useData("providers", async () => {
    const [providers, movers, volumes] = await Promise.all([get("/providers"), get("/movers"), get("/volumes")]);
    return { providers: providers.items, movers: movers.items, volumes: volumes.items };
  }, 60_000);
  const plugs = (items: { name: string; title: string; available: boolean; reason: string | null }[], caption: string) => (
    <table>
      <caption class="hidden">{caption}</caption>
      <tbody>
        {items.map((one) => (
          <tr key={one.name}>
            <th scope="row">{one.name}<div class="small quiet">{one.title}</div></th>
            <td><AvailableBadge available={one.available} />{!one.available && <div class="small">{one.reason}</div>}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
  return (
    <>
      <Head title={t("Providers")} lead={<span>{t("What takes snapshots here, what carries data away, and which volume is served by whom.")}</span>} />
      <Trouble error={found.error} />
      {!found.value ? !found.error && <Loading /> : (
        <>
          <div class="columns">
            <Panel title={t("Providers")} flush>{plugs(found.value.providers, t("Providers"))}</Panel>
            <Panel title={t("Movers")} flush>{plugs(found.value.movers, t("Movers"))}</Panel>
          </div>
          <Panel title={t("Volumes")} flush aside={<span class="small quiet">{tn(found.value.volumes.length, "{n} mounted", "{n} mounted")}</span>}>
            <table>
              <thead><tr><th scope="col">{t("Mounted at")}</th><th scope="col">{t("Provider")}</th><th scope="col" class="p2">{t("File system")}</th><th scope="col" class="p3">{t("Source")}</th><th scope="col" class="p2">{t("Why not others")}</th></tr></thead>
              <tbody>
                {found.value.volumes.map((one) => (
                  <tr key={one.path + one.mount_point}>
                    <th scope="row"><code>{one.path}</code></th>
                    <td>{one.provider ?? <span class="quiet">{t("none")}</span>}</td>
                    <td class="p2">{one.fs_type}</td>
                    <td class="p3"><code class="small">{one.source}</code></td>
                    <td class="p2 quiet small">{one.reason}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Panel>
          {can("volumeResolve") && <Resolve />}
        </>
      )}
    </>
  );
}

/** Where does a path lie, once links and detours are gone, and who would snapshot it? */
function Resolve() {
  const [path, setPath] = useState("");
  const [found, setFound] = useState<components["schemas"]["VolumeRoot"] | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const look = async (): Promise<void> => {
    try {
      setFound(await get("/volumes/resolve", { query: { path } }));
      setError(null);
    } catch (cause) {
      setFound(null);
      setError(cause as ApiError);
    }
  };
  return (
    <Panel title={t("Which volume has a path?")}>
      <form class="line-form" onSubmit={(event) => { event.preventDefault(); void look(); }}>
        <Field label={t("Path")}>{(id) => <input id={id} required spellcheck={false} placeholder="/srv/data" value={path} onInput={(event) => setPath(event.currentTarget.value)} />}</Field>
        <Button type="submit">{t("Look")}</Button>
      </form>
      <Trouble error={error} />
      {found && (
        <Facts
          items={[
            [t("Path"), <code>{found.path}</code>],
            [t("Provider"), found.provider ?? <>{t("none")}: {found.reason}</>],
            [t("What it would snapshot"), <code>{found.root_path}</code>],
            [t("Mounted at"), <code>{found.mount_point}</code>],
            [t("File system"), found.fs_type],
            [t("The same data, by any mount"), <code>{found.logical_prefix}</code>],
          ]}
        />
      )}
    </Panel>
  );
}
