/** What the measurements share: a Halligan to measure, people with tokens, replay of recorded SQL, and figures. */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { cliTokenFor } from '../../src/demo/browserless.ts';
import type { Recorded } from './house-child.ts';

export interface Bench {
  readonly url: string;
  readonly superuserUrl: string;
  /** Bytes of memory that the measured process has now (Linux). */
  memory(): Promise<number>;
  /** Runs `work` while the server records its SQL. */
  record(work: () => Promise<unknown>): Promise<Recorded[]>;
  /** When it was started with one: the OpenBao behind `orders-vault`. */
  readonly bao?: { readonly address: string; readonly rootToken: string } | undefined;
  /** What the way to the last of many targets does from now on. */
  lastTarget(mode: 'hang' | 'pass'): void;
  stop(): Promise<void>;
}

const answerOf = <T>(child: ChildProcess): Promise<T> =>
  new Promise((resolve, reject) => {
    child.once('message', (message) => resolve(message as T));
    child.once('exit', (code) => reject(new Error(`the measured Halligan ended with ${code}`)));
  });

/** `bao`: the OpenBao program, for a target behind it; `many`: ten more PostgreSQL targets, `lot-0` to `lot-9`, the last behind a proxy. */
export interface BenchOptions {
  readonly bao?: string | undefined;
  readonly many?: boolean;
}

export async function startBench(options: BenchOptions = {}): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-bench-'));
  const child = fork(new URL('house-child.ts', import.meta.url), [folder, JSON.stringify(options)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const { url, superuserUrl, dataDirectory, bao } = await answerOf<Pick<Bench, 'url' | 'superuserUrl' | 'bao'> & { dataDirectory: string }>(child);
  return {
    url,
    superuserUrl,
    bao,
    memory: async () => Number(/^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1_024,
    lastTarget: (mode) => void child.send(mode),
    async record(work) {
      child.send('record');
      await work();
      const answer = answerOf<{ recorded: Recorded[] }>(child);
      child.send('recorded');
      return (await answer).recorded;
    },
    async stop() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.send('stop');
      await gone;
      await rm(dataDirectory, { recursive: true, force: true });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** One call over a kept connection. Throws unless it succeeds. */
export function call<T>(url: string, token: string, method: 'GET' | 'POST', path: string, body?: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const payload = body ? JSON.stringify(body) : undefined;
    const headers = {
      authorization: `Bearer ${token}`,
      ...(payload ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) } : {}),
    };
    const sent = httpRequest(`${url}/api/v1${path}`, { method, headers, agent, timeout: 30_000 }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if ((response.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
        else resolve(JSON.parse(text) as T);
      });
    });
    sent.on('error', reject);
    sent.end(payload);
  });
}

/** Tokens of a person's terminals, used in turn, so that the limit of calls for one login is not what is measured. */
export async function tokensOf(url: string, person: string, count: number): Promise<() => string> {
  const tokens: string[] = [];
  for (let i = 0; i < count; i++) tokens.push((await cliTokenFor(url, person, 'bench')).token);
  let next = 0;
  return () => tokens[next++ % tokens.length] ?? '';
}

const ids = /(req|gnt|lse|dec|evt|rev)_[0-9a-f]{32}/g;

/** The statements of the calls themselves: whole transactions of the sealer and the relay, and the sweeps' questions, are left out. */
export function withoutDuties(recorded: readonly Recorded[]): Recorded[] {
  const duty =
    /audit_pending"? where|pg_try_advisory|delete from "outbox"|from "outbox"|"next_try_at" <|"ends_at" <|"starts_at" <=|"lapses_at" <=|clock_timestamp\(\) AS now$|"created_at" </i;
  const open = new Map<number, Recorded[]>();
  const kept: Recorded[] = [];
  for (const statement of recorded) {
    const { connection, text } = statement;
    if (/^begin/i.test(text)) open.set(connection, [statement]);
    else if (open.has(connection)) {
      open.get(connection)?.push(statement);
      if (!/^(commit|rollback)/i.test(text)) continue;
      const transaction = open.get(connection) ?? [];
      open.delete(connection);
      if (!transaction.some((part) => duty.test(part.text))) kept.push(...transaction);
    } else if (!duty.test(text)) kept.push(statement);
  }
  return kept;
}

/** Sends recorded statements again over plain connections, in order, with ids of its own in place of the recorded ones; `known` says which existing ones to use. */
export class Replayer {
  readonly #clients = new Map<string, pg.Client>();
  static async open(superuserUrl: string, recorded: readonly Recorded[]): Promise<Replayer> {
    const replayer = new Replayer();
    for (const database of new Set(recorded.map((statement) => statement.database))) {
      const url = new URL(superuserUrl);
      url.pathname = `/${database}`;
      const client = new pg.Client({ connectionString: url.href });
      client.on('error', () => undefined);
      await client.connect();
      await client.query(`SET SESSION AUTHORIZATION ${database === 'halligan' ? 'halligan_app' : 'halligan_target'}`);
      replayer.#clients.set(database, client);
    }
    return replayer;
  }
  async run(recorded: readonly Recorded[], known: Readonly<Record<string, string>> = {}): Promise<void> {
    const fresh = new Map(Object.entries(known));
    const renew = (text: string) =>
      text.replace(ids, (id, prefix: string) => {
        const own = fresh.get(id) ?? `${prefix}_${randomBytes(16).toString('hex')}`;
        fresh.set(id, own);
        return own;
      });
    const value = (given: unknown): unknown => (typeof given === 'string' ? renew(given) : Array.isArray(given) ? given.map(value) : given);
    for (const { database, text, values } of recorded) {
      const client = this.#clients.get(database);
      if (values.length > 0) await client?.query(renew(text), values.map(value));
      else await client?.query(renew(text));
    }
  }
  async close(): Promise<void> {
    for (const client of this.#clients.values()) await client.end();
  }
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

export interface Figure {
  readonly name: string;
  /** Ours ÷ the other's, the median over the rounds. */
  readonly ratio: number;
  readonly bound: string;
  readonly holds: boolean;
  readonly rounds: readonly number[];
  readonly note: string;
}

export const figure = (name: string, rounds: readonly number[], bound: { most?: number; least?: number }, note: string): Figure => {
  const ratio = median(rounds);
  const holds = (bound.most === undefined || ratio <= bound.most) && (bound.least === undefined || ratio >= bound.least);
  return { name, ratio, bound: bound.most === undefined ? `≥ ${bound.least}` : `≤ ${bound.most}`, holds, rounds, note };
};

export const ms = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

/** How many ask at once. */
export const clients = 8;

/** Each client does its share, one after the other; gives how long each took. */
export async function byClients(count: number, work: (index: number) => Promise<unknown>): Promise<number[]> {
  const took: number[] = [];
  let next = 0;
  const client = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) took.push(await timed(() => work(index)));
  };
  await Promise.all(Array.from({ length: clients }, client));
  return took;
}

/** Waits until `count` gives 0, or fails as an empty list does. */
export async function untilNone(count: () => Promise<number>): Promise<void> {
  for (const until = Date.now() + 60_000; (await count().catch(() => 0)) > 0; await new Promise((resolve) => setTimeout(resolve, 200)))
    if (Date.now() > until) throw new Error('what was given back does not go away');
}
