/**
 * What a button or a dialog stands for. Slack gets 32 random bytes, of which only the hash is kept; no id that could be
 * edited ever travels. A button in a message may be pressed by several people; a dialog is one person's and is taken once.
 */
import { createHash, randomBytes } from 'node:crypto';
import { type Selectable, sql } from 'kysely';
import type { Db } from '../db/pool.ts';
import type { SlackHandleTable } from '../db/schema.ts';

export type Handle = Selectable<SlackHandleTable>;
export type Purpose = Handle['purpose'];

export interface NewHandle {
  readonly purpose: Purpose;
  readonly requestId?: string;
  readonly grantId?: string;
  /** Whose dialog it is. */
  readonly personId?: string;
  /** What the dialog showed. */
  readonly seen?: string;
  readonly seconds: number;
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
const form = /^[A-Za-z0-9_-]{43}$/;
/** A dialog that was left open for longer is opened again. */
export const dialogSeconds = 1_800;

// Written outside commit(), as drafts and login codes are: a handle is nobody's state, and there is nothing to witness.
/** Makes a handle and gives the value for Slack. */
export async function newHandle(db: Db, handle: NewHandle): Promise<string> {
  const value = randomBytes(32).toString('base64url');
  await db
    .insertInto('slack_handle')
    .values({
      handle_hash: hash(value),
      purpose: handle.purpose,
      request_id: handle.requestId ?? null,
      grant_id: handle.grantId ?? null,
      person_id: handle.personId ?? null,
      seen: handle.seen ?? null,
      expires_at: sql<Date>`now() + make_interval(secs => ${Math.max(1, Math.ceil(handle.seconds))})`,
    })
    .execute();
  return value;
}

/** What a pressed button stands for; undefined when it stands for nothing, was edited, or is too old. */
export async function readHandle(db: Db, value: unknown, purpose: Purpose): Promise<Handle | undefined> {
  if (typeof value !== 'string' || !form.test(value)) return undefined;
  return db
    .selectFrom('slack_handle')
    .selectAll()
    .where('handle_hash', '=', hash(value))
    .where('purpose', '=', purpose)
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirst();
}

/** Takes a dialog's handle: `taken` once, for its own person; `used` afterwards; `unknown` for anything else. */
export async function takeHandle(
  db: Db,
  value: unknown,
  purpose: Purpose,
  personId: string,
): Promise<{ readonly how: 'taken' | 'used'; readonly handle: Handle } | { readonly how: 'unknown' }> {
  if (typeof value !== 'string' || !form.test(value)) return { how: 'unknown' };
  const taken = await db
    .updateTable('slack_handle')
    .set({ used_at: sql<Date>`now()` })
    .where('handle_hash', '=', hash(value))
    .where('purpose', '=', purpose)
    .where('person_id', '=', personId)
    .where('used_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .returningAll()
    .executeTakeFirst();
  if (taken) return { how: 'taken', handle: taken };
  const known = await readHandle(db, value, purpose);
  return known && known.person_id === personId ? { how: 'used', handle: known } : { how: 'unknown' };
}

/** After a failure of our own: the same dialog may be sent once more. */
export async function giveBack(db: Db, handle: Handle): Promise<void> {
  await db.updateTable('slack_handle').set({ used_at: null }).where('handle_hash', '=', handle.handle_hash).execute();
}

/** Remembers a call by its signature. False when it was here before. */
export async function firstTime(db: Db, signature: string): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto('slack_call')
    .values({ signature_hash: hash(signature) })
    .onConflict((conflict) => conflict.constraint('slack_call_once').doNothing())
    .executeTakeFirst();
  return numInsertedOrUpdatedRows === 1n;
}

/** Deletes what is of no more use: calls that are too old to be replayed, and handles a day after their end. */
export async function sweepSlack(db: Db): Promise<void> {
  await sql`DELETE FROM slack_call WHERE signature_hash IN (SELECT signature_hash FROM slack_call WHERE at < now() - interval '10 minutes' LIMIT 1000)`.execute(
    db,
  );
  await sql`DELETE FROM slack_handle WHERE handle_hash IN (SELECT handle_hash FROM slack_handle WHERE expires_at < now() - interval '1 day' LIMIT 1000)`.execute(
    db,
  );
}
