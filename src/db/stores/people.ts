/** People as the policy sees them, read now. */
import type { Transaction } from 'kysely';
import type { Member } from '../../domain/policy.ts';
import type { Schema } from '../schema.ts';

/** A person as the policy sees them, and when their groups were last read at the identity provider. */
export interface MemberNow extends Member {
  readonly name: string;
  readonly groupsReadAt: Date;
}

/** The person with their groups as last read at the identity provider; locked against a change of groups until the end of the transaction. */
export async function memberNow(trx: Transaction<Schema>, personId: string): Promise<MemberNow> {
  return trx
    .selectFrom('person')
    .select(['id', 'subject', 'groups', 'name', 'groups_read_at as groupsReadAt'])
    .where('id', '=', personId)
    .forShare()
    .executeTakeFirstOrThrow();
}

/** The same, for a command that counts what this person has: others of theirs that count wait until this transaction ends. */
export async function memberAlone(trx: Transaction<Schema>, personId: string): Promise<MemberNow> {
  return trx
    .selectFrom('person')
    .select(['id', 'subject', 'groups', 'name', 'groups_read_at as groupsReadAt'])
    .where('id', '=', personId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow();
}

/** Everyone who approved this request, with their groups as they are now. */
export async function approversOf(trx: Transaction<Schema>, requestId: string): Promise<Member[]> {
  return trx
    .selectFrom('decision')
    .innerJoin('person', 'person.id', 'decision.person_id')
    .select(['person.id', 'person.subject', 'person.groups'])
    .where('decision.request_id', '=', requestId)
    .where('decision.decision', '=', 'approve')
    .execute();
}
