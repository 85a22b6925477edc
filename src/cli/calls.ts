/**
 * Calls of the server's API. Each has a deadline, none follows a redirect (a token must not travel on), and a refusal of
 * the server becomes a `Refusal` with the server's own code and words.
 */
import { type ErrorCode, isRefusal, type LoginNeed, Refusal } from '../domain/errors.ts';
import { CliFault, Unreachable } from './fault.ts';
import type { WirePage } from './wire.ts';

export interface CallOptions {
  readonly body?: unknown;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds until the answer has begun; 10,000 unless set. */
  readonly deadlineMs?: number;
  /** Whether it may be sent again after a broken connection; GET always may. */
  readonly repeatable?: boolean;
  readonly signal?: AbortSignal;
}

export interface Client {
  readonly server: string;
  get<T>(path: string, query?: CallOptions['query'], options?: CallOptions): Promise<T>;
  post<T>(path: string, body: unknown, options?: CallOptions): Promise<T>;
  delete<T>(path: string): Promise<T>;
  /** Every item of a list, page by page, newest first; stop reading and it stops asking. */
  all<T>(path: string, query?: CallOptions['query']): AsyncGenerator<T>;
  /** An answer to be read as it comes. Its pieces may be at most 30 s apart. */
  stream(path: string, query?: CallOptions['query']): Promise<AsyncIterable<Uint8Array>>;
}

const usualDeadlineMs = 10_000;
const silenceMs = 30_000;
const tries = 3;

/**
 * A client for `server`; without a token only for what needs no login. `renew` gives a token for a call that was refused
 * for its login's age or class; the very same call is then made once more, and every later one with the new token.
 */
export function clientOf(server: string, token?: string, signal?: AbortSignal, renew?: (refusal: Refusal) => Promise<string>): Client {
  let bearer = token;
  const send = async (method: string, path: string, options: CallOptions = {}): Promise<Response> => {
    const once = () => call(server, bearer, method, path, signal ? { signal, ...options } : options);
    try {
      return await once();
    } catch (error) {
      if (!renew || !isRefusal(error, 'step_up_required', 'groups_stale')) throw error;
      bearer = await renew(error);
      return once();
    }
  };
  const json = async <T>(method: string, path: string, options?: CallOptions): Promise<T> => (await bodyOf(server, await send(method, path, options))) as T;
  const client: Client = {
    server,
    get: (path, query, options = {}) => json('GET', path, { ...options, ...(query === undefined ? {} : { query }), repeatable: true }),
    post: (path, body, options = {}) => json('POST', path, { ...options, body }),
    delete: (path) => json('DELETE', path),
    async *all<T>(path: string, query: CallOptions['query'] = {}) {
      let cursor: string | undefined;
      do {
        const page: WirePage<T> = await client.get(path, { ...query, cursor });
        yield* page.items;
        cursor = page.next ?? undefined;
      } while (cursor !== undefined);
    },
    stream: async (path, query = {}) => pieces(server, await send('GET', path, { query, repeatable: true })),
  };
  return client;
}

async function call(server: string, token: string | undefined, method: string, path: string, options: CallOptions): Promise<Response> {
  const url = new URL(`/api/v1${path}`, server);
  for (const [name, value] of Object.entries(options.query ?? {})) if (value !== undefined) url.searchParams.set(name, value);
  const headers = new Headers({ accept: 'application/json', 'user-agent': 'halligan', ...options.headers });
  if (token) headers.set('authorization', `Bearer ${token}`);
  if (options.body !== undefined) headers.set('content-type', 'application/json');
  const init: RequestInit = { method, headers, redirect: 'manual', ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }) };
  const deadlineMs = options.deadlineMs ?? usualDeadlineMs;
  for (let attempt = 1; ; attempt++) {
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(new Late()), deadlineMs);
    const signal = options.signal ? AbortSignal.any([deadline.signal, options.signal]) : deadline.signal;
    let response: Response;
    try {
      response = await fetch(url, { ...init, signal });
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      if (options.repeatable && attempt < tries && wasReset(error)) continue;
      throw unreachable(server, deadline.signal.aborted ? new Late() : error, deadlineMs);
    } finally {
      clearTimeout(timer);
    }
    if (response.ok) return response;
    throw await refusalOf(server, response);
  }
}

class Late extends Error {}

const codeOf = (error: unknown): string => {
  const cause = (error as { cause?: { code?: string; errors?: { code?: string }[] } }).cause;
  return cause?.code ?? cause?.errors?.[0]?.code ?? '';
};

/** The connection broke under us; the call itself was perhaps not even read. */
const wasReset = (error: unknown): boolean => ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(codeOf(error));

function unreachable(server: string, error: unknown, deadlineMs: number): Unreachable {
  const next = `Is ${server} the right address, and can this machine reach it? What is open still ends on time.`;
  if (error instanceof Late) return new Unreachable(`${server} did not answer within ${deadlineMs / 1_000} s.`, { next });
  const code = codeOf(error);
  const reasons: Record<string, string> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: 'no such host',
    EAI_AGAIN: 'the name cannot be looked up now',
    ETIMEDOUT: 'no answer',
    UND_ERR_CONNECT_TIMEOUT: 'no answer',
  };
  const why = reasons[code] ?? (code || 'the connection failed');
  return new Unreachable(`${server} cannot be reached: ${why}.`, { next });
}

async function refusalOf(server: string, response: Response): Promise<Error> {
  const problem = (await bodyOf(server, response).catch(() => undefined)) as Record<string, unknown> | undefined;
  if (typeof problem?.code !== 'string' || typeof problem.detail !== 'string') return foreign(server, response);
  const { code, detail, next } = problem;
  const login = loginNeedOf(problem);
  return new Refusal(code as ErrorCode, detail, { ...(typeof next === 'string' ? { next } : {}), ...(login ? { login } : {}) });
}

/** The login that would do, where the problem says so. */
function loginNeedOf({ maxAge, acrValues, groupsMaxAge }: Record<string, unknown>): LoginNeed | undefined {
  const need = {
    ...(typeof maxAge === 'number' ? { maxAgeSeconds: maxAge } : {}),
    ...(Array.isArray(acrValues) && acrValues.every((acr) => typeof acr === 'string') ? { acrValues } : {}),
    ...(typeof groupsMaxAge === 'number' ? { groupsMaxAgeSeconds: groupsMaxAge } : {}),
  };
  return Object.keys(need).length > 0 ? need : undefined;
}

const foreign = (server: string, response: Response): CliFault => {
  const message = `${server} answered ${response.status}, and not as Halligan does: something else is at that address, or in between.`;
  return response.status >= 502 && response.status <= 504
    ? new Unreachable(message)
    : new CliFault(message, { next: 'halligan login --server … names another address.' });
};

async function bodyOf(server: string, response: Response): Promise<unknown> {
  if (!/^application\/(problem\+)?json\b/.test(response.headers.get('content-type') ?? '')) throw foreign(server, response);
  const text: Uint8Array[] = [];
  for await (const piece of pieces(server, response)) text.push(piece);
  try {
    return JSON.parse(Buffer.concat(text).toString('utf8'));
  } catch {
    throw foreign(server, response);
  }
}

/** The body, piece by piece. Throws `Unreachable` when it breaks off or falls silent: part of an answer never passes for the whole. */
async function* pieces(server: string, response: Response): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      let timer: NodeJS.Timeout | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Late()), silenceMs);
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } catch {
    throw new Unreachable(`The answer of ${server} broke off before its end.`, { next: 'Run it again.' });
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}
