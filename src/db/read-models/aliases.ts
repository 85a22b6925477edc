/** Other accounts of people, as they linked them. */
import type { Member } from '../../domain/policy.ts';
import type { Db } from '../pool.ts';

export interface AliasKey {
  readonly kind: 'slack';
  readonly workspace: string;
  readonly account: string;
}

export interface AliasView extends AliasKey {
  readonly linkedAt: Date;
}

/** The accounts that this person linked, oldest first. */
export const aliasesOf = (db: Db, personId: string): Promise<AliasView[]> =>
  db.selectFrom('alias').select(['kind', 'workspace', 'account', 'linked_at as linkedAt']).where('person_id', '=', personId).orderBy('linked_at').execute();

/** Whose account it is, with their name and groups as they are now. */
export const personByAlias = (db: Db, { kind, workspace, account }: AliasKey): Promise<(Member & { name: string }) | undefined> =>
  db
    .selectFrom('alias')
    .innerJoin('person', 'person.id', 'alias.person_id')
    .select(['person.id', 'person.subject', 'person.name', 'person.groups'])
    .where('alias.kind', '=', kind)
    .where('alias.workspace', '=', workspace)
    .where('alias.account', '=', account)
    .executeTakeFirst();
