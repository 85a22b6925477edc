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
  /** What was known of the same person's proof before, in this browser. It stays true where the provider repeats it, or says nothing of it. */
  readonly before?: { readonly authAt: Date; readonly acr?: string | null } | undefined;
}

/** When and how the person proved who they are, in milliseconds since 1970: by this ID token, or by an earlier one that it does not replace. */
function proofOf({ authTime, acr }: Identity, before: NewLogin['before']): { readonly at: number; readonly acr: string | null } {
  const known = before?.authAt.getTime() ?? 0;
  if (authTime === undefined) return { at: known, acr: acr ?? before?.acr ?? null };
  return { at: authTime * 1_000, acr: acr ?? (Math.floor(known / 1_000) === Math.floor(authTime) ? (before?.acr ?? null) : null) };
}

/** People are keyed by (issuer, subject). Name, mail address and groups are what the provider said this time. */
export async function logIn(ctx: Ctx, identity: Identity, login: NewLogin): Promise<PersonActor> {
  const { issuer, subject, name, groups, email } = identity;
  const found = await ctx.db.selectFrom('person').select('id').where('issuer', '=', issuer).where('subject', '=', subject).executeTakeFirst();
  const id = found?.id ?? newId('person');
  const loginId = newId('session');
  const proof = proofOf(identity, login.before);
  let actor: PersonActor = { id, subject, groups, name, via: 'web', loginId, authAt: new Date(proof.at), acr: proof.acr };
  const written = await commit(ctx, actor, async (tx) => {
    // Nobody can have proved it later than now, whatever the provider's clock says; and now is Postgres' now.
    actor = { ...actor, authAt: new Date(Math.min(proof.at, tx.now.getTime())) };
    const { rows } = await sql`
      INSERT INTO person (id, issuer, subject, name, groups, email, groups_read_at) VALUES (${id}, ${issuer}, ${subject}, ${name}, ${[...groups]}, ${email}, now())
      ON CONFLICT ON CONSTRAINT person_is_issuer_and_subject
        DO UPDATE SET name = EXCLUDED.name, groups = EXCLUDED.groups, email = EXCLUDED.email, groups_read_at = now() WHERE person.id = EXCLUDED.id
      RETURNING id`.execute(tx.sql);
    // Nobody: another first login of the same person was quicker, and has given them another id.
    if (rows.length === 0) return false;
    await sql`INSERT INTO session (id_hash, id, person_id, data)
      VALUES (${hashOf(login.sessionId)}, ${loginId}, ${id}, ${JSON.stringify({ authAt: actor.authAt.toISOString(), acr: proof.acr ?? undefined, agent: login.agent })}::jsonb)`.execute(
      tx.sql,
    );
    tx.witness({
      type: 'login.succeeded',
      data: { issuer, subject, groups: [...groups], login: loginId, replaces: login.replaces, authAt: actor.authAt.toISOString(), acr: proof.acr ?? undefined },
    });
    return true;
  });
  return written ? actor : logIn(ctx, identity, login);
}
