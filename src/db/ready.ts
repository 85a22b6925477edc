/** Whether Halligan can work on its database: it lets us in, is new enough, can be written to, and has the tables that this version expects. */
import type pg from 'pg';
import { migrationsPending } from './migrate.ts';

/** In words for the person who started it. */
export class DatabaseNotReady extends Error {
  override readonly name = 'DatabaseNotReady';
}

export interface ReadyParts {
  readonly url: string;
  readonly migrationsDirectory: string;
  /** How long to wait for it. */
  readonly patienceMs: number;
  readonly log: { warn(facts: object, message: string): void };
}

export interface ServerFacts {
  /** `server_version_num`: 140000 is 14.0. */
  readonly version: number;
  readonly standby: boolean;
  readonly readOnly: boolean;
}

const notIn = 'did not let us in';
export const oldestVersion = 140_000;

/** Why this server will not do, in the words that follow its name; undefined when it will. `passing`: it may be otherwise in a moment, as during a failover. */
export function faultOf({ version, standby, readOnly }: ServerFacts): { readonly words: string; readonly passing: boolean } | undefined {
  if (version < oldestVersion) return { words: `is version ${Math.floor(version / 10_000)}, which is too old: Halligan needs 14 or newer.`, passing: false };
  if (standby) return { words: 'is a standby, which cannot be written to: database.url must lead to the primary.', passing: true };
  if (readOnly) return { words: 'is read-only for this role (default_transaction_read_only), and Halligan writes.', passing: true };
  return undefined;
}

/** Waits until it is ready. Throws `DatabaseNotReady` when it stays away, or never can be. */
export async function awaitDatabase(pool: pg.Pool, { url, migrationsDirectory, patienceMs, log }: ReadyParts): Promise<void> {
  const { host, pathname, username } = new URL(url);
  const where = `PostgreSQL at ${host}${pathname} as ${username}`;
  const until = Date.now() + patienceMs;
  for (let wait = 500; ; wait = Math.min(5_000, wait * 2)) {
    const why = await askedOnce(pool);
    if (!why) break;
    const { words, passing } = why;
    if (!passing || Date.now() + wait > until)
      throw new DatabaseNotReady(`${where} ${words.replace(notIn, `${notIn} for ${Math.round(patienceMs / 1_000)} s`)}`);
    log.warn({ code: 'database_unavailable', why: words, againInMs: wait }, `${where} cannot be used yet`);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  const pending = await migrationsPending(pool, migrationsDirectory).catch(() => ['0001_house']);
  if (pending.length > 0) throw new DatabaseNotReady(`The tables at ${where} are not up to date (${pending.join(', ')}). Run: halligan migrate`);
}

async function askedOnce(pool: pg.Pool): Promise<ReturnType<typeof faultOf>> {
  try {
    const { rows } = await pool.query<ServerFacts>(
      `SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS "readOnly"`,
    );
    return rows[0] && faultOf(rows[0]);
  } catch (error) {
    const why = (error as Error).message || (error as { code?: string }).code || 'no answer';
    return { words: `${notIn}: ${why}. Is it running, and are database.url and its password right?`, passing: true };
  }
}
