/**
 * Logins that were started and not finished. A browser holds one random value in a cookie of its own, which never
 * becomes a login session; each attempt is kept by the hash of its state, at most five, for ten minutes, for one use.
 * Nonce and PKCE verifier follow from the cookie and the state, so nothing secret rests in the database.
 */
import type pg from 'pg';
import { newId } from '../domain/ids.ts';
import type { Checks } from './identity-provider.ts';
import { derived, hashOf, newSecret } from './secrets.ts';
import type { LoginWish } from './wishes.ts';

/** What an attempt is for. It is kept with the attempt, so that what comes back is held against what was asked. */
export interface AttemptPlan {
  /** A path of ours. */
  readonly returnTo: string;
  readonly wish: LoginWish;
  /** A silent login is this person's own, and nobody else's. */
  readonly subject?: string;
  /** Where to go when the provider cannot do it silently: on to `returnTo` as things are, or to the login page. */
  readonly otherwise?: 'go on' | 'ask';
}

export interface StartedAttempt {
  readonly checks: Checks;
  /** What the browser must keep: the same value as before when that is still good. */
  readonly cookie: string;
}

const checksOf = (cookie: string, state: string): Checks => ({
  state,
  nonce: derived(cookie, `nonce ${state}`),
  verifier: derived(cookie, `verifier ${state}`),
});
const keyOf = (state: string): string => hashOf(state).toString('hex');

// Written outside commit(): an attempt is nobody's state yet. What comes of it, a login or a refusal, is witnessed.
export async function startAttempt(pool: pg.Pool, cookie: string | undefined, plan: AttemptPlan): Promise<StartedAttempt> {
  const state = newSecret();
  const kept = JSON.stringify(plan);
  if (cookie !== undefined) {
    const { rowCount } = await pool.query(
      `UPDATE session SET seen_at = now(), data = jsonb_build_object('logins',
         coalesce((SELECT jsonb_object_agg(key, value) FROM (SELECT key, value FROM jsonb_each(session.data->'logins') ORDER BY (value->>'at')::numeric DESC LIMIT 4) newest), '{}')
         || jsonb_build_object($2::text, jsonb_build_object('at', extract(epoch FROM now())) || $3::jsonb))
       WHERE id_hash = $1 AND person_id IS NULL AND seen_at > now() - interval '15 minutes'`,
      [hashOf(cookie), keyOf(state), kept],
    );
    if (rowCount === 1) return { cookie, checks: checksOf(cookie, state) };
  }
  const fresh = newSecret();
  await pool.query(
    `INSERT INTO session (id_hash, id, data)
     VALUES ($1, $2, jsonb_build_object('logins', jsonb_build_object($3::text, jsonb_build_object('at', extract(epoch FROM now())) || $4::jsonb)))`,
    [hashOf(fresh), newId('session'), keyOf(state), kept],
  );
  return { cookie: fresh, checks: checksOf(fresh, state) };
}

export interface TakenAttempt extends AttemptPlan {
  readonly checks: Checks;
  /** When it began, in seconds since 1970 by Postgres' clock. */
  readonly at: number;
}

/** Takes an attempt out, so that it can never be taken again. `undefined`: not this browser's, used, or older than ten minutes. */
export async function takeAttempt(pool: pg.Pool, cookie: string | undefined, state: string): Promise<TakenAttempt | undefined> {
  if (cookie === undefined) return undefined;
  const { rows } = await pool.query<{ attempt: (AttemptPlan & { at: number }) | null; fresh: boolean | null }>(
    `WITH held AS (SELECT id_hash, data->'logins'->$2::text AS attempt FROM session WHERE id_hash = $1 AND person_id IS NULL FOR UPDATE),
       taken AS (UPDATE session s SET data = s.data #- ARRAY['logins', $2::text] FROM held WHERE s.id_hash = held.id_hash AND held.attempt IS NOT NULL)
     SELECT attempt, (attempt->>'at')::numeric > extract(epoch FROM now() - interval '10 minutes') AS fresh FROM held`,
    [hashOf(cookie), keyOf(state)],
  );
  const { attempt = null, fresh } = rows[0] ?? {};
  return attempt && fresh ? { ...attempt, wish: attempt.wish ?? {}, checks: checksOf(cookie, state) } : undefined;
}
