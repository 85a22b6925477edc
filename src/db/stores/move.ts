/** Compare-and-set: a row moves to its next state only from the state and epoch in which it was read. */
import type { Transaction, UpdateObject } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import type { Schema } from '../schema.ts';

type Stateful = 'request' | 'access_grant' | 'lease' | 'review';

/** Moves `row` to `to`, adds one to its epoch, and sets `set`. Throws `conflict` when somebody else moved it first. Returns the new epoch. */
export async function move<T extends Stateful>(
  trx: Transaction<Schema>,
  table: T,
  row: { id: string; state: Schema[T]['state']; epoch: number },
  to: Schema[T]['state'],
  set: UpdateObject<Schema, T, T> = {} as UpdateObject<Schema, T, T>,
): Promise<number> {
  const query = trx.updateTable(table as Stateful).set({ ...(set as object), state: to, epoch: row.epoch + 1 } as never);
  const result = await query
    .where('id', '=', row.id)
    .where('state', '=', row.state as never)
    .where('epoch', '=', row.epoch)
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) throw new Refusal('conflict');
  return row.epoch + 1;
}
