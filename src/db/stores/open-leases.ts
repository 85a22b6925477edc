/** The leases of a grant that are not yet proven gone. */
import type { Transaction } from 'kysely';
import type { Schema } from '../schema.ts';

export async function openLeases(trx: Transaction<Schema>, grantId: string) {
  return trx
    .selectFrom('lease')
    .selectAll()
    .where('grant_id', '=', grantId)
    .where('state', 'in', ['issuing', 'live', 'revoking'])
    .orderBy('id')
    .forUpdate()
    .execute();
}

export type LeaseRow = Awaited<ReturnType<typeof openLeases>>[number];

/** The grant, locked. */
export const lockGrant = (trx: Transaction<Schema>, grantId: string) =>
  trx.selectFrom('access_grant').selectAll().where('id', '=', grantId).forUpdate().executeTakeFirst();

export type GrantRow = NonNullable<Awaited<ReturnType<typeof lockGrant>>>;
