/**
 * One HTTP call to Vault, for node-vault to send through. Its own way out is not used, because it cannot be stopped: here a
 * call that is given up closes its connection, and the server, which notices, takes back what it had half made. Nothing of
 * the environment (VAULT_TOKEN, proxies, VAULT_SKIP_VERIFY) is read, redirects are not followed, and no error holds a header.
 */
import { type IncomingMessage, Agent as PlainAgent, request as plainRequest } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';

const largestAnswer = 4 << 20;

/** What node-vault hands over. The last two are ours, passed along with the call. */
export interface Outgoing {
  readonly uri: string;
  readonly method: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly signal?: AbortSignal;
  /** Must not be sent twice, not even when the connection breaks before an answer: it makes something. */
  readonly once?: boolean;
}

export interface Incoming {
  readonly statusCode: number;
  readonly body: unknown;
  readonly request: { readonly path: string };
}

/** An answer that node-vault would shorten: which status, which headers. */
export class UnusableAnswer extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  constructor(status: number, headers: IncomingMessage['headers'], body: unknown) {
    super(`status ${status}`);
    this.status = status;
    this.body = body;
    const { location, 'retry-after': retryAfter, date } = headers;
    this.headers = Object.fromEntries(Object.entries({ location, retryAfter, date }).flatMap(([name, value]) => (value ? [[name, value]] : [])));
  }
}

export interface Sender {
  readonly send: (call: Outgoing) => Promise<Incoming>;
  /** By how many milliseconds the server's clock is ahead of ours, to about a second, as its last answer told; 0 before the first. */
  skewMs(): number;
  close(): void;
}

/** Connections are kept for the next call, fifteen seconds at most: well below what servers and balancers allow. `ca` is read at each new connection. */
export function openSender(ca: () => Promise<string> | undefined): Sender {
  const options = { keepAlive: true, maxSockets: 32, timeout: 15_000 };
  const [plain, secure] = [new PlainAgent(options), new TlsAgent({ ...options, minVersion: 'TLSv1.2' })];
  let skewMs = 0;
  const told = (date: string): void => {
    const at = Date.parse(date);
    if (!Number.isNaN(at)) skewMs = at + 500 - Date.now();
  };
  const send = async (call: Outgoing): Promise<Incoming> => {
    const trusted = await ca();
    try {
      return await sendOnce(call, trusted, [plain, secure], told);
    } catch (error) {
      // A kept connection that the server closed at this very moment: nothing was wrong, so a new one is tried.
      const stale = (error as { reused?: boolean; code?: string }).reused && /^(ECONNRESET|EPIPE)$/.test((error as { code?: string }).code ?? '');
      if (!stale || call.once || call.signal?.aborted) throw error;
      return sendOnce(call, trusted, [plain, secure], told);
    }
  };
  return {
    send,
    skewMs: () => skewMs,
    close() {
      plain.destroy();
      secure.destroy();
    },
  };
}

function sendOnce(call: Outgoing, ca: string | undefined, [plain, secure]: readonly [PlainAgent, TlsAgent], told: (date: string) => void): Promise<Incoming> {
  const url = new URL(call.uri);
  const body = call.json === undefined || call.json === true ? undefined : JSON.stringify(call.json);
  const headers = {
    accept: 'application/json',
    ...call.headers,
    ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
  };
  const common = { method: call.method, headers, ...(call.signal ? { signal: call.signal } : {}) };
  return new Promise((resolve, reject) => {
    const answered = (answer: IncomingMessage): void => {
      if (answer.headers.date) told(answer.headers.date);
      const chunks: Buffer[] = [];
      let size = 0;
      answer.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > largestAnswer) answer.destroy(new Error('the answer is too large'));
        else chunks.push(chunk);
      });
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const parsed = parse(text);
        const status = answer.statusCode ?? 0;
        if (status === 200 || status === 204) resolve({ statusCode: status, body: parsed, request: { path: url.pathname } });
        else reject(new UnusableAnswer(status, answer.headers, parsed));
      });
      answer.on('aborted', () => reject(Object.assign(new Error('the connection broke in the middle of the answer'), { code: 'ECONNRESET' })));
    };
    const request =
      url.protocol === 'https:'
        ? tlsRequest(url, { ...common, agent: secure, ...(ca === undefined ? {} : { ca }) }, answered)
        : plainRequest(url, { ...common, agent: plain }, answered);
    request.on('error', (error: NodeJS.ErrnoException) =>
      reject(Object.assign(new Error(error.message), { code: error.code ?? error.name, reused: request.reusedSocket })),
    );
    request.end(body);
  });
}

function parse(text: string): unknown {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
