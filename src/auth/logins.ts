/** The logins of a person, web sessions and terminals alike: seen and ended by their owner only. */
import { sql } from 'kysely';
import { type Actor, commit, type Tx } from '../commands/commit.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { Refusal } from '../domain/errors.ts';
import { GroupsUnread } from './identity.ts';
import { sessionIsLive } from './sessions.ts';

export interface Login {
  readonly id: string;
  readonly kind: 'web' | 'cli' | 'device';
  /** The browser in a few words, or what the terminal called itself. */
  readonly label: string;
  readonly createdAt: Date;
  readonly seenAt: Date;
  /** When it ends at the latest. */
  readonly expiresAt: Date;
  readonly current: boolean;
}

/** The live logins of this person, newest first. */
export async function listLogins(ctx: Pick<Ctx, 'pool'>, actor: PersonActor): Promise<Login[]> {
  const { rows } = await ctx.pool.query<Login>(
    `SELECT *, id = $2 AS current FROM (
       SELECT s.id, 'web' AS kind, coalesce(s.data->>'agent', 'A browser') AS label, s.created_at AS "createdAt", s.seen_at AS "seenAt", s.created_at + interval '12 hours' AS "expiresAt"
       FROM session s WHERE s.person_id = $1 AND ${sessionIsLive}
       UNION ALL SELECT id, via, label, created_at, coalesce(seen_at, created_at), expires_at FROM token WHERE person_id = $1 AND expires_at > now()
     ) logins ORDER BY "createdAt" DESC, id DESC`,
    [actor.id, actor.loginId],
  );
  return rows;
}

/** Ends one of the actor's own logins. Throws `not_found` for any other. */
export async function endLogin(ctx: Ctx, actor: PersonActor, id: string): Promise<void> {
  await commit(ctx, actor, async (tx) => {
    const ended = await endRows(tx, actor, id);
    if (ended === 0) throw new Refusal('not_found', 'You have no such login.', { next: 'List your logins to see their ids.' });
  });
}

/** Logs out of the login that makes this call. It may have ended meanwhile, which is as good. */
export const logOut = (ctx: Ctx, actor: PersonActor): Promise<void> => commit(ctx, actor, async (tx) => void (await endRows(tx, actor, actor.loginId)));

/** Logout everywhere: every session and every terminal of the actor, this one included. Returns how many. */
export const endAllLogins = (ctx: Ctx, actor: PersonActor): Promise<number> => commit(ctx, actor, (tx) => endRows(tx, actor, undefined));

/** Deletes, and witnesses each: no row of a login outlives its end, so nothing can bring it back. */
async function endRows(tx: Tx, actor: PersonActor, id: string | undefined): Promise<number> {
  const only = id === undefined ? sql`true` : sql`id = ${id}`;
  const sessions = await sql<{ id: string }>`DELETE FROM session WHERE person_id = ${actor.id} AND ${only} RETURNING id`.execute(tx.sql);
  const tokens = await sql<{ id: string }>`DELETE FROM token WHERE person_id = ${actor.id} AND ${only} RETURNING id`.execute(tx.sql);
  // A code that was confirmed and not yet exchanged would become a login after the logout.
  if (id === undefined) await sql`DELETE FROM login_code WHERE person_id = ${actor.id}`.execute(tx.sql);
  for (const session of sessions.rows) tx.witness({ type: 'logout.done', data: { login: session.id } });
  for (const token of tokens.rows) tx.witness({ type: 'token.ended', data: { token: token.id } });
  return sessions.rows.length + tokens.rows.length;
}

/** Deletes what time has ended: at most 500 rows of each kind. Nothing that still works is touched, so there is nothing to witness. */
export async function sweepLogins(ctx: Pick<Ctx, 'pool'>): Promise<void> {
  await ctx.pool.query(
    `DELETE FROM session WHERE id_hash IN (SELECT id_hash FROM session WHERE seen_at < now() - interval '15 minutes' ORDER BY seen_at LIMIT 500 FOR UPDATE SKIP LOCKED)`,
  );
  await ctx.pool.query(`DELETE FROM token WHERE id IN (SELECT id FROM token WHERE expires_at < now() LIMIT 500 FOR UPDATE SKIP LOCKED)`);
  await ctx.pool.query(
    `DELETE FROM login_code WHERE code_hash IN (SELECT code_hash FROM login_code WHERE expires_at < now() - interval '10 minutes' ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED)`,
  );
  // No locks here: the working role may not update a draft, and deleting one twice does no harm.
  await ctx.pool.query('DELETE FROM draft WHERE handle_hash IN (SELECT handle_hash FROM draft WHERE expires_at < now() ORDER BY expires_at LIMIT 500)');
}

/** Somebody whose groups the provider no longer tells has none: what they were last time must not carry another request, decision or claim. */
async function forgetGroups(tx: Tx, { issuer, subject }: GroupsUnread['who']): Promise<boolean> {
  const { numAffectedRows } = await sql`UPDATE person SET groups = '{}' WHERE issuer = ${issuer} AND subject = ${subject} AND groups <> '{}'`.execute(tx.sql);
  return (numAffectedRows ?? 0n) > 0n;
}

/** A refused login, witnessed. Returns the refusal for the caller to throw. */
export async function refuseLogin(
  ctx: Ctx,
  refusal: Refusal,
  data: { readonly way: 'web' | 'cli' | 'device'; readonly reason?: string },
  actor: Actor = { system: 'login' },
): Promise<Refusal> {
  await commit(ctx, actor, async (tx) => {
    const groupsForgotten = refusal instanceof GroupsUnread && (await forgetGroups(tx, refusal.who));
    tx.witness({ type: 'login.refused', data: { ...data, code: refusal.code, message: refusal.message, ...(groupsForgotten ? { groupsForgotten } : {}) } });
  });
  return refusal;
}
