/**
 * What somebody typed before they were sent to prove who they are. It rests here and not in the address: the address
 * holds a random handle, of which only the hash is kept. A draft is its person's alone, good for fifteen minutes, and
 * gone with the first form that is sent after it. It fills in a form; it never decides anything.
 */
import type pg from 'pg';
import type { Json } from '../domain/canonical.ts';
import { hashOf, newSecret } from './secrets.ts';

export interface Draft {
  /** The path that it was typed on; it is shown nowhere else. */
  readonly page: string;
  readonly fields: Readonly<Record<string, Json>>;
}

const mostPerPerson = 10;
const form = /^[A-Za-z0-9_-]{43}$/;

// Written outside commit(), as attempts to log in are: a draft is nobody's state, and there is nothing to witness.
/** Keeps a draft and gives its handle. The oldest of a person's drafts make room. */
export async function keepDraft(pool: pg.Pool, personId: string, draft: Draft): Promise<string> {
  const handle = newSecret();
  await pool.query(
    `DELETE FROM draft WHERE handle_hash IN (SELECT handle_hash FROM draft WHERE person_id = $1 ORDER BY created_at DESC OFFSET ${mostPerPerson - 1})`,
    [personId],
  );
  await pool.query(`INSERT INTO draft (handle_hash, person_id, form, expires_at) VALUES ($1, $2, $3::jsonb, now() + interval '15 minutes')`, [
    hashOf(handle),
    personId,
    JSON.stringify(draft),
  ]);
  return handle;
}

/** The fields that this person typed on this page; undefined when the handle is unknown, used, late, another's, or of another page. Changes nothing. */
export async function readDraft(pool: pg.Pool, personId: string, handle: unknown, page: string): Promise<Draft['fields'] | undefined> {
  if (typeof handle !== 'string' || !form.test(handle)) return undefined;
  const { rows } = await pool.query<{ form: Draft }>('SELECT form FROM draft WHERE handle_hash = $1 AND person_id = $2 AND expires_at > now()', [
    hashOf(handle),
    personId,
  ]);
  return rows[0]?.form.page === page ? rows[0].form.fields : undefined;
}

/** Uses a draft up. */
export async function dropDraft(pool: pg.Pool, personId: string, handle: unknown): Promise<void> {
  if (typeof handle !== 'string' || !form.test(handle)) return;
  await pool.query('DELETE FROM draft WHERE handle_hash = $1 AND person_id = $2', [hashOf(handle), personId]);
}
