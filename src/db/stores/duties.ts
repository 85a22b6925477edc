/**
 * Who does what only one process may do at a time: rows that are held for a few seconds, by PostgreSQL's clock alone. A hold that ran out
 * is anybody's, whatever became of its holder: a process that is dead, stopped, or cut off holds nothing for longer.
 */
import { sql } from 'kysely';
import { type Db, prepared } from '../pool.ts';

/** A duty as its holder had it. */
export interface Hold {
  readonly name: string;
  readonly holder: string;
  readonly epoch: number;
}

/** A duty is no longer this process', or was taken anew since. What was to be written under it must not be. */
export class HoldLost extends Error {
  override readonly name = 'HoldLost';
  constructor(hold: Hold) {
    super(`${hold.name} is no longer held at epoch ${hold.epoch}`);
  }
}

export interface DutyAnswer {
  readonly name: string;
  /** The epoch, when the asker holds it from now on; null when somebody else does, or nobody. */
  readonly epoch: number | null;
  /** How long ago a run of it last ended well, whoever did it; null when none ever did. */
  readonly doneMsAgo: number | null;
}

export interface DutyQuestion {
  readonly holder: string;
  /** Those that are wanted: free ones are taken, and one's own extended. */
  readonly wanted: readonly string[];
  /** Those whose run ended well since the last question. */
  readonly done: readonly string[];
  readonly lifeMs: number;
}

/**
 * Asks for duties, in one statement. One that is free or ran out is taken, with its epoch one higher, also when it ran out in the asker's own hands; one
 * that is the asker's is extended for `lifeMs` milliseconds. A row that somebody has locked is not waited for: its holder is writing under it.
 */
export async function askDuties(db: Db, { holder, wanted, done, lifeMs }: DutyQuestion): Promise<DutyAnswer[]> {
  const { rows } = await sql<DutyAnswer>`${sql.raw(prepared('ask_duties'))}
    WITH free AS (
      SELECT name FROM duty WHERE name = ANY (${wanted}::text[]) AND (holder IS NULL OR holder = ${holder} OR held_until <= now()) ORDER BY name FOR UPDATE SKIP LOCKED
    ), held AS (
      UPDATE duty d SET
        epoch = CASE WHEN d.holder = ${holder} AND d.held_until > now() THEN d.epoch ELSE d.epoch + 1 END,
        taken_at = CASE WHEN d.holder = ${holder} AND d.held_until > now() THEN d.taken_at ELSE now() END,
        holder = ${holder}, held_until = now() + ${lifeMs}::float8 * interval '1 millisecond',
        done_at = CASE WHEN d.name = ANY (${done}::text[]) THEN now() ELSE d.done_at END
      FROM free WHERE d.name = free.name AND (d.holder IS NULL OR d.holder = ${holder} OR d.held_until <= now())
      RETURNING d.name, d.epoch, d.done_at
    )
    SELECT duty.name, held.epoch, (extract(epoch FROM now() - coalesce(held.done_at, duty.done_at)) * 1000)::float8 AS "doneMsAgo"
    FROM duty LEFT JOIN held ON held.name = duty.name`.execute(db);
  return rows;
}

/** Gives duties up, so that the next one who asks has them at once. Those of others are left alone. */
export async function releaseDuties(db: Db, holder: string, names: readonly string[]): Promise<void> {
  await sql`UPDATE duty SET holder = NULL, held_until = NULL WHERE holder = ${holder} AND name = ANY (${names}::text[])`.execute(db);
}

/**
 * Throws `HoldLost` unless the duty is still held as it was. In a transaction nobody can take it before the end of that transaction, however long it
 * lasts: what is written in it is never a stale holder's.
 */
export async function assertHeld(trx: Db, hold: Hold): Promise<void> {
  const { rows } = await sql`SELECT FROM duty WHERE name = ${hold.name} AND holder = ${hold.holder} AND epoch = ${hold.epoch} FOR SHARE`.execute(trx);
  if (rows.length === 0) throw new HoldLost(hold);
}

/** The same, without keeping others from taking it: for what does no harm twice. */
export async function isHeld(db: Db, hold: Hold): Promise<boolean> {
  const { rows } = await sql`SELECT FROM duty WHERE name = ${hold.name} AND holder = ${hold.holder} AND epoch = ${hold.epoch}`.execute(db);
  return rows.length > 0;
}
