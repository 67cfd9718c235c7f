// Who may do what: the operations behind the buttons, with their least roles, and what a token's scopes leave of them. A unit test holds the table against openapi.yaml.
import { login } from "../api/client";
import type { Role } from "../api/types";

type Rule = readonly [call: string, ...roles: Role[]];

export const OPERATIONS = {
  auditList: ["GET /audit", "auditor"],
  backupCreate: ["POST /backups", "operator"],
  backupDelete: ["DELETE /backups/{backup_id}", "admin"],
  backupFiles: ["GET /backups/{backup_id}/files", "operator", "restorer"],
  backupList: ["GET /backups", "viewer"],
  backupRestore: ["POST /backups/{backup_id}/restore", "restorer"],
  backupVerify: ["POST /backups/{backup_id}/verify", "operator", "restorer"],
  certificateDelete: ["DELETE /certificates/{certificate_id}", "viewer"],
  componentPatch: ["PATCH /sessions/{session_id}/components/{component_id}", "operator", "restorer"],
  enrolmentCreate: ["POST /enrolments", "admin"],
  enrolmentDelete: ["DELETE /enrolments/{enrolment_id}", "admin"],
  enrolmentList: ["GET /enrolments", "auditor"],
  jobCancel: ["DELETE /jobs/{job_id}", "operator", "restorer"],
  jobList: ["GET /jobs", "viewer"],
  jobRelease: ["POST /jobs/{job_id}/release", "operator", "restorer"],
  jobRestoreFiles: ["POST /sessions/{session_id}/restore-files", "restorer"],
  jobSnapshot: ["POST /sessions/{session_id}/snapshot", "operator"],
  providerList: ["GET /providers", "viewer"],
  repositoryCreate: ["POST /repositories", "admin"],
  repositoryDelete: ["DELETE /repositories/{name}", "admin"],
  repositoryList: ["GET /repositories", "viewer"],
  repositoryPut: ["PUT /repositories/{name}", "admin"],
  repositoryScan: ["POST /repositories/{name}/scan", "admin"],
  sessionAbort: ["POST /sessions/{session_id}/abort", "operator", "restorer"],
  sessionCreate: ["POST /sessions", "operator", "restorer"],
  sessionList: ["GET /sessions", "viewer"],
  snapshotArchive: ["GET /snapshots/{snapshot_id}/archive", "restorer"],
  snapshotDelete: ["DELETE /snapshots/{snapshot_id}", "operator"],
  snapshotExpose: ["POST /snapshots/{snapshot_id}/exposure", "operator", "restorer"],
  snapshotFiles: ["GET /snapshots/{snapshot_id}/files", "operator", "restorer"],
  snapshotList: ["GET /snapshots", "viewer"],
  snapshotRevert: ["POST /snapshots/{snapshot_id}/revert", "restorer"],
  snapshotSetRelease: ["POST /sessions/{session_id}/snapshot-set/release", "operator"],
  snapshotUnexpose: ["DELETE /snapshots/{snapshot_id}/exposure", "operator", "restorer"],
  tokenCreate: ["POST /tokens", "viewer"],
  tokenDelete: ["DELETE /tokens/{token_id}", "viewer"],
  volumeResolve: ["GET /volumes/resolve", "operator"],
  webhookCreate: ["POST /webhooks", "admin"],
  webhookDelete: ["DELETE /webhooks/{webhook_id}", "admin"],
  webhookList: ["GET /webhooks", "admin"],
  webhookPatch: ["PATCH /webhooks/{webhook_id}", "admin"],
  webhookRotate: ["POST /webhooks/{webhook_id}/rotate", "admin"],
  webhookTest: ["POST /webhooks/{webhook_id}/test", "admin"],
  deliveryRedeliver: ["POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", "admin"],
  writerList: ["GET /writers", "viewer"],
} as const satisfies Record<string, Rule>;

export type Operation = keyof typeof OPERATIONS;

/** viewer < operator, restorer, auditor < admin; operator and restorer do not include each other. */
export const ofRole = (role: Role | undefined, ...roles: Role[]): boolean => role !== undefined && (role === "admin" || roles.includes(role) || roles.includes("viewer"));

function beneath(path: string, prefix: string): boolean {
  const begin = prefix.length > 1 ? prefix.replace(/\/+$/, "") || "/" : prefix;
  return begin === "/" || path === begin || path.startsWith(`${begin}/`);
}

/** As api/scope.c rules it: "read", "read:/jobs", "/backups", or the name of an operation. No scope: all that the role may. */
export function covered(scopes: readonly string[] | undefined, name: Operation): boolean {
  const [method, path] = OPERATIONS[name][0].split(" ") as [string, string];
  return !scopes?.length || scopes.some((scope) => {
    if (scope === "read") return method === "GET";
    if (scope.startsWith("read:/")) return method === "GET" && beneath(path, scope.slice("read:".length));
    return scope.startsWith("/") ? beneath(path, scope) : scope === name;
  });
}

/** May who is logged in do it? What he may not is not offered. */
export function can(name: Operation): boolean {
  const [, ...roles] = OPERATIONS[name] as Rule;
  return ofRole(login.value?.role, ...roles) && covered(login.value?.scopes, name);
}
