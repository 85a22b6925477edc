/** A person links another account of theirs, once: the code is shown to them on the web, and typed where the account is. */
import { createHash, randomInt } from 'node:crypto';
import { sql } from 'kysely';
import type { AliasKey } from '../db/read-models/aliases.ts';
import { Refusal } from '../domain/errors.ts';
import { commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/** Twenty consonants: no word comes out, and no letter is taken for another. Twelve of them are 51 bits. */
const letters = 'BCDFGHJKLMNPQRSTVWXZ';
export const linkCodeSeconds = 600;

const hashOf = (code: string): Buffer =>
  createHash('sha256')
    .update(code.toUpperCase().replaceAll(/[^A-Z]/g, ''))
    .digest();

/**
 * A new code of this person, good for ten minutes and for one use; an earlier one is void. By a login at the web only: a
 * terminal that somebody else was led to let in must not gain an account that can decide. Throws `device_may_not_decide`.
 */
export async function newLinkCode(ctx: Ctx, actor: PersonActor): Promise<{ readonly code: string; readonly expiresAt: Date }> {
  if (actor.via !== 'web')
    throw new Refusal('device_may_not_decide', 'Accounts are linked from a login in a browser only.', { next: 'Open the page of your accounts.' });
  const code = Array.from({ length: 3 }, () => Array.from({ length: 4 }, () => letters[randomInt(letters.length)]).join('')).join('-');
  return commit(ctx, actor, async (tx) => {
    await tx.sql.deleteFrom('link_code').where('person_id', '=', actor.id).execute();
    await tx.sql.deleteFrom('link_code').where('expires_at', '<', tx.now).execute();
    const { expires_at: expiresAt } = await tx.sql
      .insertInto('link_code')
      .values({ code_hash: hashOf(code), person_id: actor.id, expires_at: sql<Date>`now() + make_interval(secs => ${linkCodeSeconds})` })
      .returning('expires_at')
      .executeTakeFirstOrThrow();
    return { code, expiresAt };
  });
}

/**
 * The account from which the code came is this person's from now on. Returns their name. Throws `link_code_invalid`, and
 * `alias_taken` when the account is another's, or the person has another one there.
 */
export async function linkAlias(ctx: Ctx, account: AliasKey, code: string): Promise<{ readonly personId: string; readonly name: string }> {
  const person = await ctx.db
    .selectFrom('link_code')
    .innerJoin('person', 'person.id', 'link_code.person_id')
    .select(['person.id', 'person.name', 'person.subject', 'person.groups'])
    .where('link_code.code_hash', '=', hashOf(code))
    .executeTakeFirst();
  if (!person) throw new Refusal('link_code_invalid', undefined, { next: 'Make a new one on the page of your accounts.' });
  const { kind, workspace, account: name } = account;
  const actor: PersonActor = { ...person, via: 'slack', loginId: `${kind}:${workspace}:${name}`, authAt: new Date(0) };
  return commit(
    ctx,
    actor,
    async (tx) => {
      const used = await tx.sql
        .deleteFrom('link_code')
        .where('code_hash', '=', hashOf(code))
        .where('expires_at', '>', tx.now)
        .returning('person_id')
        .executeTakeFirst();
      if (!used) throw new Refusal('link_code_invalid', undefined, { next: 'Make a new one on the page of your accounts.' });
      const known = await tx.sql
        .selectFrom('alias')
        .selectAll()
        .where('kind', '=', kind)
        .where('workspace', '=', workspace)
        .where('account', '=', name)
        .executeTakeFirst();
      if (known?.person_id === person.id) return { personId: person.id, name: person.name };
      const made = await tx.sql
        .insertInto('alias')
        .values({ ...account, person_id: person.id })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (made.numInsertedOrUpdatedRows !== 1n)
        throw new Refusal('alias_taken', undefined, { next: 'Unlink the other one first, on the page of your accounts.' });
      tx.witness({ type: 'alias.linked', data: { ...account } });
      return { personId: person.id, name: person.name };
    },
    () => ({ type: 'access.refused', data: { command: 'link-alias', ...account } }),
  );
}

/** The account is this person's no longer. Throws `not_found`. */
export async function unlinkAlias(ctx: Ctx, actor: PersonActor, account: AliasKey): Promise<void> {
  await commit(ctx, actor, async (tx) => {
    const gone = await tx.sql
      .deleteFrom('alias')
      .where('kind', '=', account.kind)
      .where('workspace', '=', account.workspace)
      .where('account', '=', account.account)
      .where('person_id', '=', actor.id)
      .executeTakeFirst();
    if (gone.numDeletedRows !== 1n) throw new Refusal('not_found', 'You have no such account linked.');
    tx.witness({ type: 'alias.unlinked', data: { ...account } });
  });
}
