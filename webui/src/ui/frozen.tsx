// What is frozen this moment, how long, until when at most, and the way out.
import { useState } from "preact/hooks";
import { call, type ApiError } from "../api/client";
import type { Session } from "../api/types";
import { t } from "../i18n";
import { can } from "../model/can";
import { now } from "../state/clock";
import { invalidate } from "../state/data";
import { frozen, type Frozen } from "../state/live";
import { Button, Check, Dialog, Field, Link, Trouble } from "./basics";
import { absolute, coarse } from "./format";
import { Icon } from "./icon";

interface Held {
  session: Session | undefined;
  id: string;
  since: string;
  deadline: string;
  what: string[];
  stuck?: string | undefined;
}

/** From the stream where there is one, and from the sessions themselves. */
export function heldOf(sessions: Session[], told: ReadonlyMap<string, Frozen>): Held[] {
  const found = new Map<string, Held>();
  for (const session of sessions) {
    const held = session.frozen ?? session.hold;
    if (!held) continue;
    const what = "file_systems" in held ? [...(held as Frozen).file_systems, ...(held as Frozen).writers] : [];
    found.set(session.id, { session, id: session.id, since: held.since, deadline: held.deadline, what, stuck: (held as Frozen).stuck });
  }
  for (const [id, held] of told) {
    found.set(id, { session: sessions.find((one) => one.id === id), id, since: held.since, deadline: held.deadline, what: [...held.file_systems, ...held.writers], stuck: held.stuck });
  }
  return [...found.values()];
}

export function FrozenPanel({ sessions }: { sessions: Session[] }) {
  const held = heldOf(sessions, frozen.value);
  const [asked, ask] = useState<string | null>(null);
  const [releasing, release] = useState<string | null>(null);
  if (!held.length && !asked && !releasing) return null;
  return (
    <section class="frozen" aria-label={t("Frozen now")}>
      {held.map((one) => {
        const left = Date.parse(one.deadline) - now.value;
        return (
          <div class="frozen-row" key={one.id}>
            <Icon name="frozen" />
            <div class="grow">
              <strong>
                {t("Frozen for")} <time class="num" dateTime={one.since} title={absolute(Date.parse(one.since))}>{coarse(now.value - Date.parse(one.since))}</time>
              </strong>
              <div class="small">
                {one.what.length > 0 && <>{one.what.join(", ")} · </>}
                <Link to={["sessions", one.id]}>{one.session?.label ?? t("session")}</Link> · {one.stuck ?? t("thaws by itself in {span} at the latest", { span: coarse(Math.max(0, left)) })}
              </div>
            </div>
            {!one.stuck && one.session?.hold && can("snapshotSetRelease") && <Button onClick={() => release(one.id)}>{t("Release the hold")}</Button>}
            {!one.stuck && can("sessionAbort") && <Button kind="danger" onClick={() => ask(one.id)}>{t("Thaw now")}</Button>}
          </div>
        );
      })}
      {asked && <ThawDialog id={asked} onClose={() => ask(null)} />}
      {releasing && <HoldDialog id={releasing} onClose={() => release(null)} />}
    </section>
  );
}

/** Provider `external`: the storage's own snapshot was taken outside, or could not be. */
function HoldDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const [name, setName] = useState("");
  const [failed, setFailed] = useState(false);
  const [reason, setReason] = useState("");
  const body = failed ? { failed, ...(reason && { reason }) } : name ? { outside_id: name } : {};
  const release = async (): Promise<void> => {
    try {
      await call("post", "/sessions/{session_id}/snapshot-set/release", { params: { session_id: id }, body });
      invalidate();
      onClose();
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <Dialog title={t("Release the hold")} onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); void release(); }}>
        <p>{t("The file systems are frozen until the snapshot outside of this host is taken. Releasing thaws them, and DoSnapshotSet ends.")}</p>
        <Check checked={failed} onChange={setFailed}>{t("It could not be taken: DoSnapshotSet fails")}</Check>
        {failed
          ? <Field label={t("Reason")}>{(field) => <input id={field} maxLength={1024} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />}</Field>
          : <Field label={t("Its name outside")} hint={t("So that it can be found again; for every volume of the set.")}>{(field) => <input id={field} maxLength={255} value={name} onInput={(event) => setName(event.currentTarget.value)} />}</Field>}
        <Trouble error={error} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{t("Leave it frozen")}</Button>
          <Button kind="main" type="submit">{t("Release the hold")}</Button>
        </div>
      </form>
    </Dialog>
  );
}

export function ThawDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const thaw = async (): Promise<void> => {
    try {
      await call("post", "/sessions/{session_id}/abort", { params: { session_id: id } });
      invalidate();
      onClose();
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <Dialog title={t("Thaw now")} onClose={onClose}>
      <p>{t("Everything that this session holds is thawed at once, and the session is aborted:")}</p>
      <ul>
        <li>{t("File systems and writers go on working.")}</li>
        <li>{t("The snapshot in the making is not finished and is removed.")}</li>
        <li>{t("The backup has to be begun again.")}</li>
      </ul>
      <Trouble error={error} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{t("Leave it frozen")}</Button>
        <Button kind="danger" icon="frozen" onClick={thaw}>{t("Thaw and abort")}</Button>
      </div>
    </Dialog>
  );
}
