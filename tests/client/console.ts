// What a console does, verb by verb: a backup session with two credentials, a cancel, a restore session, a restore in one call.
// Usage: console.ts PLACE      PLACE/ready.json is the daemon's; PLACE/data its data, PLACE/restored where files may go
import { readFileSync } from "node:fs";
import { connect, ended, refused, succeeded, taken, type Ready, type Schemas, type Wire } from "./wire.ts";

type Path = { params: { path: { session_id: string } } };

function at(session: Schemas["Session"]): Path {
  return { params: { path: { session_id: session.id } } };
}

/** From POST /sessions to a set that is open; `leave` names the writers that stay out of it. */
async function choose(wire: Wire, label: string, place: string, leave: string[]) {
  const session = taken(await wire.POST("/sessions", { body: { kind: "backup", label, context: "backup" } }), 201);
  const here = at(session);
  const early = refused(await wire.POST("/sessions/{session_id}/complete", { ...here, body: {} }), 409);
  if (early.hresult !== "VSS_E_BAD_STATE" || early.session_state !== "initialized") throw new Error(early.detail);

  const known = taken(await wire.GET("/writers"), 200).items;
  const out = known.flatMap((writer) => (leave.includes(writer.name) && writer.instance_id ? [writer.instance_id] : []));
  taken(await wire.PUT("/sessions/{session_id}/writer-filter", { ...here, body: { disable_instances: out } }), 200);
  const state = taken(await wire.PUT("/sessions/{session_id}/backup-state", { ...here, body: { type: "full", component_mode: true } }), 200);
  if (state.backup_state?.type !== "full" || state.backup_state.partial_files) throw new Error("backup_state");

  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/metadata", here), 202));
  const chosen: Schemas["Component"][] = [];
  for (const writer of taken(await wire.GET("/sessions/{session_id}/writers", here), 200).items)
    for (const { logical_path, name, type } of writer.components)
      chosen.push(taken(await wire.POST("/sessions/{session_id}/components", { ...here, body: { instance_id: writer.instance_id, type, logical_path, name } }), 201));
  const set = taken(await wire.POST("/sessions/{session_id}/snapshot-set", { ...here, body: {} }), 201);
  const volume = taken(await wire.POST("/sessions/{session_id}/snapshot-set/volumes", { ...here, body: { path: `${place}/data` } }), 201);
  if (set.session_id !== session.id || !volume.provider) throw new Error("snapshot set");
  return { session, here, chosen };
}

async function lifecycle(wire: Wire, place: string) {
  const { session, here, chosen } = await choose(wire, "console", place, ["slow"]);
  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/prepare", here), 202));
  const shot = await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/snapshot", here), 202));
  const copied = await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/copy", { ...here, body: { repository: "main" } }), 202));
  for (const { id } of chosen) {
    const path = { session_id: session.id, component_id: id };
    const said = taken(await wire.PATCH("/sessions/{session_id}/components/{component_id}", { params: { path }, body: { succeeded: true } }), 200);
    if (said.succeeded !== true) throw new Error(`${said.name}: succeeded`);
  }
  const told = await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/complete", here), 202));
  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/status", here), 202));
  const status = taken(await wire.GET("/sessions/{session_id}/writer-status", here), 200).items;
  const after = taken(await wire.GET("/sessions/{session_id}", here), 200);
  const document = taken(await wire.GET("/sessions/{session_id}/document", here), 200);
  const gone = await wire.DELETE("/sessions/{session_id}", here);
  if (gone.error || (gone.response.status !== 204 && gone.response.status !== 202)) throw new Error("DELETE of the session");
  if (gone.data) await succeeded(wire, gone.data);
  return {
    state: after.state,
    backup: copied.backup_id,
    writers: Array.isArray(told.writers) ? told.writers.map((writer) => [writer.name, writer.state]) : [],
    status: status.map((writer) => [writer.name, writer.failure]),
    window: shot.freeze?.window_ms,
    grade: shot.consistency?.grade,
    components: document.components.map((component) => [component.name, component.succeeded]),
  };
}

/** The writer `slow` does not answer BackupComplete: the operator cancels it. */
async function cancel(wire: Wire, place: string) {
  const { session, here } = await choose(wire, "to be cancelled", place, []);
  for (const verb of ["prepare", "snapshot"] as const)
    await succeeded(wire, taken(await wire.POST(`/sessions/{session_id}/${verb}`, here), 202));
  const job = taken(await wire.POST("/sessions/{session_id}/complete", here), 202);
  const it = { params: { path: { job_id: job.id } } };
  const first = taken(await wire.DELETE("/jobs/{job_id}", it), 202);
  const end = await ended(wire, job);
  const again = taken(await wire.DELETE("/jobs/{job_id}", it), 200);
  const after = taken(await wire.GET("/sessions/{session_id}", at(session)), 200);
  taken(await wire.POST("/jobs/{job_id}/release", it), 204);
  const released = refused(await wire.GET("/jobs/{job_id}", it), 410);
  return {
    cancel: [first.cancel, again.cancel], state: end.state, hresult: end.hresult, failed: end.result?.cleanup?.failed,
    session: after.state, released: released.status,
  };
}

/** A restore session: the files come back to their places. */
async function restore(wire: Wire, backup: string) {
  const session = taken(await wire.POST("/sessions", { body: { kind: "restore", backup_id: backup } }), 201);
  const here = at(session);
  taken(await wire.PUT("/sessions/{session_id}/writer-filter", { ...here, body: {} }), 200);
  taken(await wire.PUT("/sessions/{session_id}/restore-state", { ...here, body: { type: "by_copy" } }), 200);
  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/metadata", here), 202));
  const components = taken(await wire.GET("/sessions/{session_id}/components", here), 200).items;
  for (const { id } of components) {
    const path = { session_id: session.id, component_id: id };
    taken(await wire.PATCH("/sessions/{session_id}/components/{component_id}", { params: { path }, body: { selected: true } }), 200);
  }
  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/pre-restore", here), 202));
  const files = await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/restore-files", { ...here, body: {} }), 202));
  await succeeded(wire, taken(await wire.POST("/sessions/{session_id}/post-restore", here), 202));
  const after = taken(await wire.GET("/sessions/{session_id}", here), 200);
  return { state: after.state, verified: files.verified, statuses: files.components?.map((component) => component.file_restore_status) };
}

/** The whole backup elsewhere, in one call. */
async function restoreBeside(wire: Wire, backup: string, place: string) {
  const catalog = taken(await wire.GET("/backups", { params: { query: { limit: 10 } } }), 200);
  const found = catalog.items.find((item) => item.id === backup);
  const body = { target: `${place}/restored`, overwrite: true };
  const result = await succeeded(wire, taken(await wire.POST("/backups/{backup_id}/restore", { params: { path: { backup_id: backup } }, body }), 202));
  return { complete: found?.complete, verified: result.verified, files: result.files };
}

/** Nobody is spoken to whose certificate is of another CA. */
async function strangers(url: string): Promise<string> {
  const stranger = connect(url, undefined, undefined);
  try {
    await stranger.wire.GET("/health/live");
    return "trusted";
  } catch (error) {
    const cause = error instanceof Error ? (error.cause as { code?: string } | undefined) : undefined;
    return cause?.code ?? String(error);
  } finally {
    await stranger.close();
  }
}

async function main(place: string) {
  const ready = JSON.parse(readFileSync(`${place}/ready.json`, "utf8")) as Ready;
  const byCertificate = connect(ready.url, ready.ca, { cert: ready.cert, key: ready.key });
  const byToken = connect(ready.url, ready.ca, { token: readFileSync(ready.token_file, "utf8").trim() });
  const me = taken(await byCertificate.wire.GET("/whoami"), 200);
  const made = taken(await byToken.wire.POST("/tokens", { body: { name: "colleague", role: "operator", expires_in_seconds: 3600 } }), 201);
  if (made.token === null) throw new Error("a replay, though nothing was sent twice"); // null: docs/api.md, Idempotency-Key
  const operator = connect(ready.url, ready.ca, { token: made.token });
  const nobody = connect(ready.url, ready.ca, undefined);

  const backup = await lifecycle(byCertificate.wire, place);
  if (!backup.backup) throw new Error("no backup");
  const told = {
    me: [me.principal, me.role, me.authentication],
    stranger: await strangers(ready.url),
    nobody: refused(await nobody.wire.GET("/sessions"), 401).hresult,
    backup,
    forbidden: refused(await operator.wire.DELETE("/backups/{backup_id}", { params: { path: { backup_id: backup.backup } } }), 403).hresult,
    cancel: await cancel(operator.wire, place),
    restore: await restore(byToken.wire, backup.backup),
    beside: await restoreBeside(byToken.wire, backup.backup, place),
  };
  for (const { close } of [byCertificate, byToken, operator, nobody]) await close();
  return told;
}

const [place] = process.argv.slice(2);
if (!place) throw new Error("usage: console.ts PLACE");
console.log(JSON.stringify(await main(place)));
