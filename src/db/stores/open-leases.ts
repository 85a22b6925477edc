/** Grants, and those of their leases that are not yet proven gone. Who needs both locks the grants first; all lock in the order of ids. */
import type { Transaction } from 'kysely';
import type { Schema } from '../schema.ts';

/** The open leases of these grants, locked. */
export async function openLeases(trx: Transaction<Schema>, grantIds: readonly string[]) {
  return trx
    .selectFrom('lease')
    .selectAll()
    .where('grant_id', 'in', grantIds)
    .where('state', 'in', ['issuing', 'live', 'revoking'])
    .orderBy('id')
    .forUpdate()
    .execute();
}

export type LeaseRow = Awaited<ReturnType<typeof openLeases>>[number];

/** The grants, locked. */
export const lockGrants = (trx: Transaction<Schema>, grantIds: readonly string[]) =>
  trx.selectFrom('access_grant').selectAll().where('id', 'in', grantIds).orderBy('id').forUpdate().execute();

export type GrantRow = Awaited<ReturnType<typeof lockGrants>>[number];

/** The grant, locked. */
export const lockGrant = async (trx: Transaction<Schema>, grantId: string): Promise<GrantRow | undefined> => (await lockGrants(trx, [grantId]))[0];
