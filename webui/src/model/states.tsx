// States as text, icon and colour, the same everywhere.
import type { Grade, JobState, Role, SessionState } from "../api/types";
import { t } from "../i18n";
import { Badge, type Tone } from "../ui/basics";
import type { IconName } from "../ui/icon";

type Look = readonly [Tone, IconName, string];

const JOB: Record<JobState, Look> = {
  pending: ["off", "pending", "pending"],
  running: ["run", "running", "running"],
  cancelling: ["warn", "running", "cancelling"],
  succeeded: ["ok", "ok", "succeeded"],
  failed: ["bad", "failed", "failed"],
  cancelled: ["off", "cancelled", "cancelled"],
};

const SESSION: Record<SessionState, Look> = {
  initialized: ["off", "pending", "initialized"],
  identified: ["run", "sessions", "identified"],
  set_open: ["run", "sessions", "set open"],
  prepared: ["run", "sessions", "prepared"],
  snapshotted: ["run", "snapshots", "snapshotted"],
  snapshot_failed: ["bad", "failed", "snapshot failed"],
  pre_restored: ["run", "sessions", "pre-restored"],
  completed: ["ok", "ok", "completed"],
  aborted: ["bad", "cancelled", "aborted"],
};

const GRADE: Record<Grade, Look> = {
  application: ["ok", "ok", "application"],
  filesystem: ["run", "ok", "filesystem"],
  crash: ["warn", "warn", "crash"],
  none: ["bad", "warn", "none"],
};

const UNKNOWN: Look = ["off", "none", ""];

function Look({ look: [tone, icon, text], raw }: { look: Look; raw: string }) {
  return (
    <Badge tone={tone} icon={icon}>
      {text ? t(text) : raw}
    </Badge>
  );
}

export const JobBadge = ({ state }: { state: JobState }) => <Look look={JOB[state] ?? UNKNOWN} raw={state} />;
export const SessionBadge = ({ state }: { state: SessionState }) => <Look look={SESSION[state] ?? UNKNOWN} raw={state} />;
export const GradeBadge = ({ grade }: { grade: Grade | null | undefined }) => (grade ? <Look look={GRADE[grade] ?? UNKNOWN} raw={grade} /> : <span class="quiet">–</span>);
export const CompleteBadge = ({ complete }: { complete: boolean }) =>
  complete ? <Badge tone="ok" icon="ok">{t("complete")}</Badge> : <Badge tone="bad" icon="warn">{t("incomplete")}</Badge>;
/** Nothing where nothing was checked. */
export const ConditionBadge = ({ condition }: { condition: "good" | "damaged" | "missing" | null | undefined }) =>
  condition === "good" ? <Badge tone="ok" icon="ok">{t("verified")}</Badge> : condition ? <Badge tone="bad" icon="failed">{condition === "missing" ? t("gone") : t("damaged")}</Badge> : null;
export const AvailableBadge = ({ available }: { available: boolean }) =>
  available ? <Badge tone="ok" icon="ok">{t("available")}</Badge> : <Badge tone="bad" icon="failed">{t("not available")}</Badge>;

export const JOB_STATES = Object.keys(JOB) as JobState[];
export const SESSION_STATES = Object.keys(SESSION) as SessionState[];

export const pending = (state: JobState): boolean => state === "pending" || state === "running" || state === "cancelling";
export const ended = (state: SessionState): boolean => state === "completed" || state === "aborted";

/** Whom the daemon shows only what is his own (docs/access.md). */
export const ownOnly = (role: Role | undefined): boolean => role === "operator" || role === "restorer";
