/**
 * A whole Halligan for a test: its own database, a real PostgreSQL target, a real identity provider, and the server on a
 * free port; in this process, or as a child that can be killed. `close()` ends and removes all of it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import pg from 'pg';
import pino from 'pino';
import { inject } from 'vitest';
import type { PersonActor } from '../../src/commands/context.ts';
import { type Running, startProcess } from '../../src/compose.ts';
import { type Config, parseConfig } from '../../src/config/load.ts';
import { type DevelopmentPerson, type IdentityProvider, startIdentityProvider } from '../../src/demo/identity-provider.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { cliTokenFor } from './browserless-login.ts';
import { type ConfigOptions, housePeople, writeConfig } from './house-config.ts';
import { type TestDatabase, type TestTarget, testDatabase, testTarget } from './postgres.ts';
import { type Faults, providerDouble } from './provider-double.ts';

export interface HouseOptions extends ConfigOptions {
  /** `here` runs the server in this process; `none` leaves it to the test. */
  readonly server?: 'here' | 'none';
  readonly worker?: boolean;
  readonly people?: DevelopmentPerson[];
}

export interface Answer<T = Record<string, unknown>> {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The parsed body, or an empty object. */
  readonly body: T & { code?: string; detail?: string; next?: string };
}

export interface Api {
  call<T = Record<string, unknown>>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<T>>;
  get<T = Record<string, unknown>>(path: string): Promise<Answer<T>>;
  post<T = Record<string, unknown>>(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<T>>;
}

export interface House {
  readonly url: string;
  readonly config: Config;
  readonly configFile: string;
  readonly folder: string;
  readonly verifierKey: string;
  readonly running: Running;
  readonly database: TestDatabase;
  readonly target: TestTarget;
  readonly provider: IdentityProvider;
  /** What stands in the way of the target's calls; nothing unless a test says so. */
  readonly faults: Faults;
  /** Every line that the server logged. */
  readonly logged: string[];
  /** The API, as this person by a terminal's token; `null` is nobody. */
  apiAs(subject: string | null): Promise<Api>;
  /** This person as the commands see them. They must have logged in. */
  actor(subject: string, via?: PersonActor['via']): Promise<PersonActor>;
  /** A token of this person, for a server that is started later. */
  tokenOf(subject: string): Promise<string>;
  /** After a logout everywhere: the next call logs in again. */
  forgetToken(subject: string): void;
  /** Starts the server, for `server: 'none'`. */
  start(options?: { worker?: boolean }): Promise<Running>;
  /** Stops it. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

/** Some port that is free now. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port'))));
    });
  });

/** Repeats until `check` gives something; throws `what` after `withinMs`. */
export async function until<T>(what: string, check: () => Promise<T | undefined | null | false> | T | undefined | null | false, withinMs = 10_000): Promise<T> {
  for (const end = Date.now() + withinMs; ; ) {
    const found = await check();
    if (found !== undefined && found !== null && found !== false) return found;
    if (Date.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The API over HTTP, with this bearer token. */
export function apiOf(url: string, token: string | null): Api {
  const call = async <T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer<T>> => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: {
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      redirect: 'manual',
      signal: AbortSignal.timeout(20_000),
    });
    const text = await response.text();
    const parsed = text.startsWith('{') && !/jsonl/.test(response.headers.get('content-type') ?? '') ? (JSON.parse(text) as object) : {};
    return { status: response.status, headers: response.headers, text, body: parsed as Answer<T>['body'] };
  };
  return { call, get: (path) => call('GET', path), post: (path, body, headers) => call('POST', path, body ?? {}, headers) };
}

/** Starts everything; see `HouseOptions`. */
export async function startTestHouse(options: HouseOptions = {}): Promise<House> {
  const undo: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const folder = await mkdtemp(join(inject('server').folder, 'house-'));
    undo.push(() => rm(folder, { recursive: true, force: true }));
    const database = await testDatabase();
    undo.push(() => database.close());
    const target = await testTarget();
    undo.push(() => target.close());
    const url = `http://127.0.0.1:${await freePort()}`;
    const provider = await startIdentityProvider({
      clients: [{ clientId: 'halligan', clientSecret: 'the test client has this secret', redirectUris: [`${url}/login/callback`] }],
      people: options.people ?? housePeople(),
    });
    undo.push(() => provider.close());
    const { file, text, verifierKey } = await writeConfig(folder, { url, issuer: provider.issuer, database, target }, options);
    const faults: Faults = {};
    const config = await parseConfig(file, text, async (kind) => {
      const real = await providerOf(kind);
      return real && providerDouble(real, () => faults);
    });
    const logged: string[] = [];
    const sink = new Writable({
      write: (chunk, _encoding, done) => {
        logged.push(String(chunk));
        done();
      },
    });
    const log = pino({ level: options.logLevel ?? 'info', base: null }, sink);
    let running: Running | undefined;
    const stop = async (): Promise<void> => {
      const was = running;
      running = undefined;
      await was?.stop();
    };
    const start = async (more: { worker?: boolean } = {}): Promise<Running> => {
      running = await startProcess(config, { web: true, worker: more.worker ?? options.worker ?? true, log, databasePatienceMs: 5_000 });
      return running;
    };
    undo.push(async () => {
      if (running?.workers) await endEverything(database);
      await stop();
      await removeLeases(target);
    });
    if (options.server !== 'none') await start();
    const tokens = new Map<string, Promise<string>>();
    const tokenOf = (subject: string): Promise<string> => {
      const token = tokens.get(subject) ?? cliTokenFor(url, subject).then((login) => login.token);
      tokens.set(subject, token);
      return token;
    };
    return {
      url,
      config,
      configFile: file,
      folder,
      verifierKey,
      get running() {
        if (!running) throw new Error('the server is not running');
        return running;
      },
      database,
      target,
      provider,
      faults,
      logged,
      tokenOf,
      forgetToken: (subject) => void tokens.delete(subject),
      apiAs: async (subject) => apiOf(url, subject === null ? null : await tokenOf(subject)),
      actor: (subject, via = 'api') => actorOf(database, subject, via),
      start,
      stop,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function actorOf(database: TestDatabase, subject: string, via: PersonActor['via']): Promise<PersonActor> {
  const { rows } = await database.superuser.query<{ id: string; groups: string[]; name: string }>('SELECT id, groups, name FROM person WHERE subject = $1', [
    subject,
  ]);
  const [row] = rows;
  if (!row) throw new Error(`${subject} has not logged in`);
  return { ...row, subject, via, loginId: `ses_${'0'.repeat(32)}`, authAt: new Date() };
}

/** Lets what a test left open end by the ordinary way, so that nothing is left at the target. */
async function endEverything(database: TestDatabase): Promise<void> {
  await database.superuser.query(
    `UPDATE access_grant SET ends_at = greatest(starts_at + interval '1 ms', now()) WHERE state IN ('active') AND ends_at > now()`,
  );
  await until(
    'every lease ended',
    async () => (await database.superuser.query(`SELECT FROM lease WHERE state IN ('live', 'revoking') AND revealed_at IS NOT NULL`)).rowCount === 0,
    15_000,
  ).catch(() => undefined);
}

/** The roles at the target that bear our marker, read by SQL that shares nothing with the provider. */
export async function rolesAt(target: TestTarget): Promise<{ name: string; lease: string }[]> {
  const { rows } = await target.superuser.query<{ name: string; lease: string }>(
    `SELECT r.rolname AS name, substring(shobj_description(r.oid, 'pg_authid') FROM 'lease=(lse_[0-9a-f]{32})') AS lease
       FROM pg_roles r JOIN pg_auth_members m ON m.roleid = r.oid JOIN pg_roles a ON a.oid = m.member AND (a.rolname = $1 OR starts_with(a.rolname, $1 || '_maker_'))
      WHERE r.rolname LIKE 'hg\\_%' GROUP BY r.oid, r.rolname ORDER BY 1`,
    [target.adminRole],
  );
  return rows;
}

/** Tests that leave leases on purpose (no worker, a kill at the end) are cleaned up after here. */
async function removeLeases(target: TestTarget): Promise<void> {
  for (const { name } of await rolesAt(target)) {
    await target.superuser.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [name]);
    await target.superuser.query(`DROP OWNED BY ${pg.escapeIdentifier(name)}`);
    await target.superuser.query(`DROP ROLE ${pg.escapeIdentifier(name)}`);
  }
}
