// The one place that talks to the daemon. Paths, parameters, bodies and replies are checked against the contract's types.
import { computed, signal } from "@preact/signals";
import { clock, told } from "../state/clock";
import { knownLogin, rememberLogin } from "../state/prefs";
import type { paths } from "./contract";
import type { Login, Problem } from "./types";

type Verb = "get" | "post" | "put" | "patch" | "delete";
type Json<R> = R extends { content: { "application/json": infer T } } ? T : undefined;
type Reply<O> = O extends { responses: infer R } ? { [S in keyof R]: S extends 200 | 201 | 202 | 204 ? Json<R[S]> : never }[keyof R] : never;
type Operation<P extends keyof paths, V extends Verb> = NonNullable<paths[P][V & keyof paths[P]]>;
type Body<O> = O extends { requestBody?: infer B } ? (NonNullable<B> extends { content: { "application/json": infer T } } ? T : never) : never;
type Query<O> = O extends { parameters: { query?: infer Q } } ? NonNullable<Q> : never;
export type PathsWith<V extends Verb> = { [P in keyof paths]: paths[P] extends { [K in V]: object } ? P : never }[keyof paths];

export interface Options<O> {
  params?: Record<string, string>;
  query?: Query<O> | undefined;
  body?: Body<O> | undefined;
  /** Send If-Match with the ETag under which this page saw the resource last: what somebody else has changed meanwhile is not overwritten. */
  guarded?: boolean;
  /** Milliseconds until an answer is missed; where the daemon has to ask others first it is more than usual. */
  patience?: number;
}

const seen = new Map<string, string>();

/** Who does not answer a question for so long is not there, whatever the connection says. */
const SILENCE_MS = 15_000;

/** An answer that is no success, or none at all (status 0). */
export class ApiError extends Error {
  constructor(readonly status: number, readonly problem: Partial<Problem>, readonly requestId: string) {
    super(problem.detail || problem.title || `HTTP ${status}`);
  }
}

/** When the daemon answered last, and since when it has not. */
export const contact = signal<{ at: number; lostAt: number | null }>({ at: clock(), lostAt: null });
const known = knownLogin();
/**
 * Null when nobody is logged in. Until the daemon has answered it is who was the last time: so that the page is drawn, and its data fetched, without waiting.
 * Whether he still may, each of those answers says by itself.
 */
export const login = signal<Login | null>(known && { ...known, role: known.role as Login["role"], csrf_token: "", expires_at: "", idle_expires_at: "" } as Login);
/** Has the daemon said who that is? */
export const confirmed = computed(() => Boolean(login.value?.csrf_token));
/** Why the login was lost, for the login screen. */
export const lostLogin = signal(false);

export function fill(path: string, params: Record<string, string> = {}, query: Record<string, unknown> = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, String(value));
  }
  return search.size ? `${filled}?${search}` : filled;
}

async function send(verb: string, path: string, body: unknown, { guarded = false, patience = SILENCE_MS } = {}): Promise<Response> {
  const headers = new Headers({ Accept: path.endsWith(".pem") || path.startsWith("/events") ? "*/*" : "application/json" });
  if (body !== undefined) headers.set("Content-Type", "application/json");
  if (verb !== "get" && login.value && !confirmed.value) await askLogin();
  if (verb !== "get" && login.value) headers.set("X-CSRF-Token", login.value.csrf_token);
  const tag = seen.get(path);
  if (guarded && tag) headers.set("If-Match", tag);
  const begun = clock();
  try {
    const init: RequestInit = { method: verb.toUpperCase(), headers, credentials: "same-origin", redirect: "error", cache: "no-store" };
    if (verb === "get") init.signal = AbortSignal.timeout(patience);
    if (body !== undefined) init.body = JSON.stringify(body);
    const response = await fetch(path, init);
    told(response.headers.get("Date"));
    contact.value = { at: clock(), lostAt: null };
    if (verb === "get" && response.ok) remember(path, response.headers.get("ETag"));
    return response;
  } catch (cause) {
    // one call that waits long (for a thaw, say) is no silence while others are answered
    const silent = !(cause instanceof DOMException && cause.name === "TimeoutError") || contact.value.at < begun;
    if (silent && contact.value.lostAt === null) contact.value = { at: contact.value.at, lostAt: clock() };
    throw new ApiError(0, { title: "The daemon does not answer.", detail: cause instanceof Error ? cause.message : "" }, "");
  }
}

const MOST_REMEMBERED = 500;

function remember(path: string, tag: string | null): void {
  if (!tag) return;
  if (seen.size >= MOST_REMEMBERED) seen.clear();
  seen.set(path, tag);
}

async function failure(response: Response): Promise<ApiError> {
  let problem: Partial<Problem> = { title: response.statusText || `HTTP ${response.status}`, status: response.status };
  try {
    problem = (await response.json()) as Problem;
  } catch {
    // a proxy's page: its status is all there is
  }
  return new ApiError(response.status, problem, response.headers.get("X-Request-Id") ?? problem.request_id ?? "");
}

function lose(): void {
  lostLogin.value = true;
  login.value = null;
  rememberLogin(null);
}

/** The body's text, or undefined where there is none. */
async function text(verb: string, path: string, body?: unknown, how: { guarded?: boolean; patience?: number } = {}): Promise<string | undefined> {
  const response = await send(verb, path, body, how);
  if (response.ok) return response.status === 204 ? undefined : response.text();
  if (response.status === 401 && login.value) lose();
  throw await failure(response);
}

export async function call<V extends Verb, P extends PathsWith<V>>(verb: V, path: P, options: Options<Operation<P, V>> = {}): Promise<Reply<Operation<P, V>>> {
  const url = fill(path, options.params, (options.query ?? {}) as Record<string, unknown>);
  const answer = await text(verb, url, options.body, options);
  return (answer ? JSON.parse(answer) : undefined) as Reply<Operation<P, V>>;
}

export const get = <P extends PathsWith<"get">>(path: P, options: Options<Operation<P, "get">> = {}) => call("get", path, options);

let asking: Promise<void> | undefined;

/** Who is logged in? Nobody is asked about where nobody was; a login that has ended is treated as everywhere. */
export function askLogin(): Promise<void> {
  if (!login.peek()) return Promise.resolve();
  asking ??= get("/login")
    .then(
      (found) => {
        if (!login.peek()) return; // another answer has ended it
        login.value = found;
        lostLogin.value = false;
        rememberLogin(found);
      },
      (error: ApiError) => {
        if (error.status === 404) lose(); // no cookie any more, though the browser's certificate gets by
        throw error;
      },
    )
    .finally(() => (asking = undefined));
  return asking;
}

/** With a token, or with the browser's client certificate. */
export async function logIn(token: string | null): Promise<void> {
  login.value = await call("post", "/login", { body: token === null ? {} : { token } });
  lostLogin.value = false;
  rememberLogin(login.value);
}

export async function logOut(everywhere: boolean): Promise<void> {
  await call("delete", "/login", { query: { everywhere } });
  login.value = null;
  lostLogin.value = false;
  rememberLogin(null);
}

/** A file that the reply's browser saves; errors come back as problems before anything is saved. */
export const plain = text;
