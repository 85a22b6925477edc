/** A login that succeeded: the person and their groups are written, the session begins, and both are witnessed, in one transaction. */
import { sql } from 'kysely';
import { commit } from '../commands/commit.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { newId } from '../domain/ids.ts';
import type { Identity } from './identity.ts';
import { hashOf } from './secrets.ts';

export interface NewLogin {
  readonly sessionId: string;
  /** The browser in a few words. */
  readonly agent: string;
  /** The public id of the session that this login replaces in the same browser. */
  readonly replaces?: string | undefined;
}

/** People are keyed by (issuer, subject). Name and groups are what the provider said this time. */
export async function logIn(ctx: Ctx, identity: Identity, login: NewLogin): Promise<PersonActor> {
  const { issuer, subject, name, groups } = identity;
  const found = await ctx.db.selectFrom('person').select('id').where('issuer', '=', issuer).where('subject', '=', subject).executeTakeFirst();
  const id = found?.id ?? newId('person');
  const loginId = newId('session');
  const authAt = new Date(Math.min(identity.authTime * 1000, Date.now()));
  const actor: PersonActor = { id, subject, groups, name, via: 'web', loginId, authAt };
  const written = await commit(ctx, actor, async (tx) => {
    const { rows } = await sql`
      INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) VALUES (${id}, ${issuer}, ${subject}, ${name}, ${[...groups]}, now())
      ON CONFLICT ON CONSTRAINT person_is_issuer_and_subject
        DO UPDATE SET name = EXCLUDED.name, groups = EXCLUDED.groups, groups_read_at = now() WHERE person.id = EXCLUDED.id
      RETURNING id`.execute(tx.sql);
    // Nobody: another first login of the same person was quicker, and has given them another id.
    if (rows.length === 0) return false;
    await sql`INSERT INTO session (id_hash, id, person_id, data)
      VALUES (${hashOf(login.sessionId)}, ${loginId}, ${id}, ${JSON.stringify({ authAt: authAt.toISOString(), agent: login.agent })}::jsonb)`.execute(tx.sql);
    tx.witness({ type: 'login.succeeded', data: { issuer, subject, groups: [...groups], login: loginId, replaces: login.replaces } });
    return true;
  });
  return written ? actor : logIn(ctx, identity, login);
}
