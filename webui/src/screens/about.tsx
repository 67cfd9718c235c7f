// About: which daemon this is, whether it is well, and how to trust it.
import { get, login, plain } from "../api/client";
import { t } from "../i18n";
import { useReady } from "../shell";
import { useData } from "../state/data";
import { useList } from "../state/list";
import type { LoggedError } from "../api/types";
import { Badge, Button, Facts, Head, Loading, Panel, Time, Trouble } from "../ui/basics";

/** SHA-256 of the certificate in a PEM text, as pairs of hexadecimal digits. */
export async function fingerprint(pem: string): Promise<string> {
  const base64 = /-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/.exec(pem)?.[1]?.replace(/\s/g, "") ?? "";
  const digest = await crypto.subtle.digest("SHA-256", Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":");
}

const PAGE: [string, string][] = [["preact", "MIT"], ["@preact/signals", "MIT"]];
/** What docs/dependencies.md names as part of the product; a unit test holds this against it. */
export const PARTS: [string, string][] = [
  ["libmicrohttpd", "LGPL-2.1+"], ["llhttp", "MIT"], ["jansson", "MIT"], ["OpenSSL", "Apache-2.0"], ["SQLite", "public domain"], ["libpq", "PostgreSQL"],
  ["libmariadb", "LGPL-2.1+"], ["hiredis", "BSD-3-Clause"], ["libyaml", "MIT"], ["libarchive", "BSD-2-Clause"], ["libbtrfsutil", "LGPL-2.1+"], ["libmount", "LGPL-2.1+"],
  ["libcurl", "curl"], ["libcap-ng", "LGPL-2.1+"],
];
const listed = (parts: [string, string][]): string => parts.map(([name, licence]) => `${name} (${licence})`).join(", ");

export function About() {
  const version = useData("version", () => get("/version"), 60_000);
  const ca = useData("ca", async () => fingerprint((await plain("get", "/ca.pem")) ?? ""), 600_000);
  const ready = useReady();
  const errors = useList<LoggedError>("errors", async (cursor) => get("/errors", { query: { limit: 20, cursor } as never }), 30_000);
  const who = login.value!;
  return (
    <>
      <Head title={t("About")} lead={<span>{t("This daemon, its health and its identity.")}</span>} />
      <Trouble error={version.error ?? ready.error ?? ca.error} />
      <Panel title="quiesced">
        {!version.value ? <Loading /> : (
          <Facts
            items={[
              [t("Version"), version.value.version],
              [t("Address"), <code>{location.origin}</code>],
              [t("Health"), ready.value && (ready.value.ready ? <Badge tone="ok" icon="ok">{t("ready")}</Badge> : <><Badge tone="bad" icon="failed">{t("not ready")}</Badge> {ready.value.reasons.join("; ")}</>)],
              [t("Warnings"), ready.value?.warnings.join("; ")],
              [t("You"), <>{who.principal}, {t(who.role)}</>],
              [t("Logged in until"), <Time at={who.expires_at} />],
              [t("Without use until"), <Time at={who.idle_expires_at} />],
            ]}
          />
        )}
      </Panel>
      <Panel title={t("Fingerprint of the private CA")}>
        {ca.value && <p class="secret">{ca.value}</p>}
        <p class="quiet small">{t("SHA-256. Compare it with what the daemon printed at its first start before you trust a ca.pem from elsewhere.")}</p>
      </Panel>
      <Panel title={t("Logged errors")} flush>
        {errors.items?.length === 0 && <p class="quiet foot">{t("None: nothing unexpected has happened.")}</p>}
        <table>
          <tbody>
            {errors.items?.map((error) => (
              <tr key={error.id}>
                <td class="nowrap"><Time at={error.time} /></td>
                <td>{error.text}<div class="small quiet"><code>{error.hresult}</code> {error.writer}</div></td>
              </tr>
            ))}
          </tbody>
        </table>
        {errors.more && <p class="foot"><Button small onClick={errors.loadMore}>{t("Show more")}</Button></p>}
      </Panel>
      <Panel title={t("The API and this page")}>
        <p>{t("Everything here is done over the API that is described in")} <a href="/openapi.yaml">openapi.yaml</a> · <a href="/docs/">/docs/</a> · <a href="/docs/manual/">{t("The manual")}</a></p>
        <p>{t("For machines:")} <a href="/metrics">/metrics</a> · <a href="/health/ready">/health/ready</a> · <a href="/openapi.json">/openapi.json</a> · <a href="/ca.pem" download="ca.pem">/ca.pem</a></p>
      </Panel>
      <Panel title={t("Licences")}>
        <p>{t("The daemon is built with")} {listed(PARTS)}. {t("On Debian their texts lie in /usr/share/doc, each in the file copyright of its package.")}</p>
        <p>{t("This page is made with")} {listed(PAGE)}; {t("the reader of the API at /docs/ is")} Swagger UI (Apache-2.0).</p>
      </Panel>
    </>
  );
}
