/**
 * The way to a PostgreSQL target, and what its answers mean: connections with deadlines, transactions, quoting, and the
 * translation of every failure into a `ProviderError`. The people whose access ends may have left objects with hostile
 * names and functions, so every session has an empty search path but for `pg_catalog`, and every name is quoted here.
 */
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { z } from 'zod';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import { sessionKeeper } from './sessions.ts';

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

export const targetSchema = z
  .strictObject({
    host: z.string().min(1).max(253).describe('where the server is'),
    port: z.int().min(1).max(65_535).default(5432),
    database: z.string().min(1).max(63).describe('the database that logins are told to connect to'),
    user: z.string().min(1).max(63).describe("Halligan's own role there"),
    passwordFile: z.string().min(1).optional().describe("a file that holds that role's password"),
    passwordEnv: z.string().min(1).optional().describe("an environment variable that holds that role's password"),
    tls: z.enum(['verify-full', 'require', 'disable']).default('verify-full').describe('require encrypts without knowing whom it talks to'),
    tlsCaFile: z.string().min(1).optional().describe("the certificate authority to trust (PEM), instead of the system's"),
    allowPlaintext: z.boolean().default(false).describe('lets tls: disable be used for a server on another machine'),
    leftoversRole: z.string().min(1).max(63).default('halligan_leftovers').describe('the powerless role that gets what holders leave behind'),
    connectionLimit: z.int().min(1).max(1_000).default(10).describe('how many sessions one issued login may have at once'),
    makers: z.int().min(0).max(64).default(16).describe('how many helper roles share out the logins, from PostgreSQL 16 on; 0: none'),
    reaper: z
      .union([z.boolean(), z.int().min(1).max(3_600)])
      .default(false)
      .describe('halligan reap runs beside the server, from the beginning of one round to that of the next at most so many seconds; true: 60'),
  })
  .superRefine((block, ctx) => {
    if ((block.passwordFile === undefined) === (block.passwordEnv === undefined))
      ctx.addIssue({ code: 'custom', path: ['passwordFile'], message: 'say passwordFile or passwordEnv, one of the two' });
    if (block.tls === 'disable' && !block.allowPlaintext && !isLoopback(block.host)) {
      ctx.addIssue({ code: 'custom', path: ['tls'], message: 'disable is for a server on this machine; for another one say allowPlaintext: true as well' });
    }
  });
export type TargetConfig = z.infer<typeof targetSchema>;
/** What it takes to go there, and to end a login. */
export type DoorConfig = Omit<TargetConfig, 'makers' | 'reaper'>;

export const quoteName = pg.escapeIdentifier;
export const quoteText = pg.escapeLiteral;

/** One target's connections. `run` never throws anything but a `ProviderError`. */
export interface Door {
  readonly name: string;
  readonly config: DoorConfig;
  /**
   * Gives `work` a session in the target's own database, or in `database`. When `signal` fires the session is destroyed
   * and `target_timeout` thrown. After any failure the session is thrown away, never used again.
   */
  run<T>(signal: AbortSignal, doing: string, work: (client: pg.ClientBase) => Promise<T>, database?: string): Promise<T>;
  close(): Promise<void>;
}

const connectMs = 5_000;
const statementMs = 9_000;

/** Opens nothing yet: the first call does. At most four sessions are kept, in the target's own database. */
export function openDoor(name: string, config: DoorConfig, options: TargetOptions): Door {
  const secret = config.passwordFile === undefined ? { env: config.passwordEnv ?? '' } : { file: config.passwordFile };
  const settings = async (database: string): Promise<pg.ClientConfig> => ({
    host: config.host,
    port: config.port,
    database,
    user: config.user,
    password: await options.readSecret(secret),
    ssl:
      config.tls === 'disable'
        ? false
        : {
            rejectUnauthorized: config.tls === 'verify-full',
            minVersion: 'TLSv1.2',
            ...(config.tlsCaFile === undefined ? {} : { ca: await options.readSecret({ file: config.tlsCaFile }) }),
          },
    application_name: 'halligan',
    connectionTimeoutMillis: connectMs,
    query_timeout: statementMs + 2_000,
    keepAlive: true,
    options: `-c search_path=pg_catalog,pg_temp -c statement_timeout=${statementMs} -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000 -c client_min_messages=notice -c DateStyle=ISO`,
  });
  const sessions = sessionKeeper(settings, config.database);

  return {
    name,
    config,
    close: sessions.close,
    async run(signal, doing, work, database = config.database) {
      const stopped = new Promise<never>((_, reject) => {
        const stop = () => reject(timedOut(name, doing));
        if (signal.aborted) stop();
        else signal.addEventListener('abort', stop, { once: true });
      });
      stopped.catch(() => undefined);
      const taking = sessions.take(database);
      let client: pg.Client | undefined;
      let whole = false;
      try {
        client = await Promise.race([taking, stopped]);
        const result = await Promise.race([work(client), stopped]);
        whole = true;
        return result;
      } catch (error) {
        throw asProviderError(error, name, config, doing);
      } finally {
        if (client) sessions.give(client, whole);
        else
          taking.then(
            (late) => sessions.give(late, false),
            () => undefined,
          );
      }
    },
  };
}

/** Lets at most `most` calls through at once; the others wait in turn, no longer than their signal. */
export function gate(most: number) {
  let busy = 0;
  const waiting: (() => void)[] = [];
  return async <T>(signal: AbortSignal, name: string, work: () => Promise<T>): Promise<T> => {
    if (busy < most) busy += 1;
    else {
      await new Promise<void>((go, stop) => {
        const give = () => {
          signal.removeEventListener('abort', leave);
          go();
        };
        const leave = () => {
          waiting.splice(waiting.indexOf(give), 1);
          stop(new ProviderError('target_timeout', `${name} is busy: too many calls wait for it.`, { nothingMade: true }));
        };
        waiting.push(give);
        signal.addEventListener('abort', leave, { once: true });
        if (signal.aborted) leave();
      });
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else busy -= 1;
    }
  };
}

/** BEGIN … COMMIT. `beforeCommit` is called when the answer can no longer be known for certain: just before COMMIT is sent. */
export async function transaction<T>(client: pg.ClientBase, work: () => Promise<T>, beforeCommit: () => void = () => undefined): Promise<T> {
  await client.query('BEGIN');
  try {
    const result = await work();
    beforeCommit();
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/**
 * A transaction in two round trips: `first` reads (the answer to each of its statements is given to `then`), and what `then` gives is
 * done. Values in the texts are quoted by the caller.
 */
export async function readThenWrite(client: pg.ClientBase, first: string, then: (read: pg.QueryResult[]) => string): Promise<void> {
  try {
    const [, ...read] = (await client.query(`BEGIN; ${first}`)) as unknown as pg.QueryResult[];
    await client.query(`${then(read)}; COMMIT`);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/** Runs `work` again when another session changed the same rows at the same moment; PostgreSQL has three words for that. */
export async function againWhenConcurrent<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      const { code, message } = sqlOf(error);
      const concurrent =
        (code === 'XX000' && /tuple concurrently/.test(message)) || code === '40P01' || code === '40001' || code === '23505' || code === '42710';
      if (!concurrent || tries >= 6) throw error;
      await sleep(20 * tries + Math.random() * 30);
    }
  }
}

/** An array of these oids, as SQL. */
export const oidsOf = (found: readonly { readonly oid: number }[]): string => `ARRAY[${found.map(({ oid }) => oid).join(', ')}]::pg_catalog.oid[]`;

/** Whose advisory locks these are. */
export const lockSpace = 8214;
/** One writer per lease and database, for the length of a transaction. */
export const lockLease = (client: pg.ClientBase, externalName: string): Promise<unknown> =>
  client.query(`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, ${lockSpace}))`, [externalName]);

/** The SQLSTATE and message of an error, also of one that is already translated. */
export function sqlOf(error: unknown): { code: string; message: string; detail: string } {
  const from = error instanceof ProviderError && error.cause ? error.cause : error;
  const { code, message, detail } = (from ?? {}) as { code?: unknown; message?: unknown; detail?: unknown };
  return { code: String(code ?? ''), message: String(message ?? ''), detail: String(detail ?? '') };
}

/** One line, without control characters, at most 300 long: what a target says may hold names that its users chose. */
export const oneLine = (text: string): string => {
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
};

const timedOut = (name: string, doing: string): ProviderError => new ProviderError('target_timeout', `${name} did not answer in time while ${doing}.`);

function asProviderError(error: unknown, name: string, config: DoorConfig, doing: string): ProviderError {
  if (error instanceof ProviderError) return error;
  const { code, message } = sqlOf(error);
  const said = oneLine(message);
  const made = (type: ConstructorParameters<typeof ProviderError>[0], text: string, next?: string): ProviderError => {
    const translated = new ProviderError(type, text, next === undefined ? {} : { next });
    // The cause is for our own branching (its SQLSTATE). It can hold no password: none is ever part of a statement.
    Object.defineProperty(translated, 'cause', { value: { code, message: said, detail: oneLine(sqlOf(error).detail) }, enumerable: false });
    return translated;
  };
  const where = `${config.host}:${config.port}`;
  switch (code) {
    case '28P01':
    case '28000':
      return made(
        'target_forbids',
        `${name} does not let Halligan's own role ${config.user} in: ${said}.`,
        'Check its password, its VALID UNTIL and pg_hba.conf.',
      );
    case '42501':
      return made(
        'target_forbids',
        `${name} refused while ${doing}: ${said}.`,
        "Run halligan's check of the target: it names the missing right and the SQL that grants it (docs/providers.md).",
      );
    case '3D000':
      return made('target_unreachable', `${name}: ${said}.`, 'Correct "database" in the target\'s config.');
    case '53300':
    case '57P01':
    case '57P02':
    case '57P03':
    case '08006':
    case '08003':
      return made('target_unreachable', `${name} takes no connection now: ${said}.`);
    case '57014':
    case '55P03':
    case '25P03':
      return made('target_timeout', `${name} did not finish in time while ${doing}: ${said}.`, 'A long transaction may hold a lock there.');
    case '55000':
      return made('target_forbids', `${name} refused while ${doing}: ${said}.`);
    default:
  }
  if (/timeout exceeded when trying to connect|connection timeout|Query read timeout|timeout expired/i.test(message) || code === 'ETIMEDOUT')
    return timedOut(name, doing);
  if (/does not support SSL/.test(message))
    return made('target_unreachable', `${name} at ${where} does not offer TLS.`, 'Turn ssl on at the server, or say tls: disable if it is on this machine.');
  if (/CERT|TLS|SSL|SELF_SIGNED/.test(code))
    return made(
      'target_unreachable',
      `${name} at ${where} could not prove who it is: ${said}.`,
      "Set tlsCaFile to the authority that signed the server's certificate.",
    );
  if (/^E[A-Z_]+$/.test(code) || /Connection terminated|not queryable|closed/i.test(message))
    return made('target_unreachable', `${name} at ${where} could not be reached (${code || said}).`);
  return made('target_failed', `${name} failed while ${doing}: ${said}${code && ` (${code})`}.`);
}
