// A typed client of one daemon. What it takes and gives is schema.d.ts, which openapi-typescript makes from openapi.yaml.
import { readFileSync } from "node:fs";
import createClient, { type Client } from "openapi-fetch";
import { Agent } from "undici";
import type { components, paths } from "./schema.d.ts";

export type Schemas = components["schemas"];
export type Job = Schemas["Job"];
export type Wire = Client<paths>;
/** What `quiesced serve --ready-file` writes. */
export type Ready = { url: string; ca: string; cert: string; key: string; token_file: string };
/** A bearer token, or the client certificate; nothing at all for who has none. */
export type Credential = { token: string } | { cert: string; key: string } | undefined;

/** The daemon's certificate must be of the CA `ca` (PEM file) and for the name in `url`. */
export function connect(url: string, ca: string | undefined, credential: Credential): { wire: Wire; close: () => Promise<void> } {
  const own = credential && "cert" in credential ? { cert: readFileSync(credential.cert), key: readFileSync(credential.key) } : {};
  const dispatcher = new Agent({ connect: { ...own, ...(ca ? { ca: readFileSync(ca) } : {}), rejectUnauthorized: true } });
  const send = (request: Request) => fetch(request, { dispatcher } as RequestInit);
  const headers = credential && "token" in credential ? { Authorization: `Bearer ${credential.token}` } : {};
  return { wire: createClient<paths>({ baseUrl: url, fetch: send, headers }), close: () => dispatcher.close() };
}

export class Refused extends Error {
  readonly problem: Schemas["Problem"] | undefined;
  constructor(response: Response, problem: Schemas["Problem"] | undefined) {
    super(`${response.status} ${response.url}: ${problem?.hresult ?? ""} ${problem?.detail ?? ""}`);
    this.problem = problem;
  }
}

type Reply<T> = { data?: T; error?: Schemas["Problem"]; response: Response };

/** The body of a reply that must be a success with this status. */
export function taken<T>(reply: Reply<T>, status: number): T {
  if (reply.error !== undefined || reply.response.status !== status) throw new Refused(reply.response, reply.error);
  return reply.data as T;
}

/** The problem of a reply that must be a refusal with this status. */
export function refused(reply: Reply<unknown>, status: number): Schemas["Problem"] {
  if (reply.error === undefined || reply.response.status !== status) throw new Error(`${reply.response.url}: ${reply.response.status}, not ${status}`);
  return reply.error;
}

/** Long-polls until the job has ended. */
export async function ended(wire: Wire, accepted: Job): Promise<Job> {
  for (;;) {
    const job = taken(await wire.GET("/jobs/{job_id}", { params: { path: { job_id: accepted.id }, query: { wait: 20 } } }), 200);
    if (job.state === "succeeded" || job.state === "failed" || job.state === "cancelled") return job;
  }
}

/** The job's result; anything but `succeeded` is an error. */
export async function succeeded(wire: Wire, accepted: Job): Promise<NonNullable<Job["result"]>> {
  const job = await ended(wire, accepted);
  if (job.state !== "succeeded" || job.hresult !== "VSS_S_ASYNC_FINISHED" || !job.result)
    throw new Error(`${job.operation}: ${job.state} ${job.hresult} ${job.error?.detail ?? ""}`);
  return job.result;
}
