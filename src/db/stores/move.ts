/** Compare-and-set: a row moves to its next state only from the state and epoch in which it was read. */
import { sql, type Transaction, type Updateable } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import { prepared } from '../pool.ts';
import type { Schema } from '../schema.ts';

type Stateful = 'request' | 'access_grant' | 'lease' | 'review';

/** Where a row goes from where it was read, and what is set with that. */
export interface Move<T extends Stateful> {
  readonly row: { readonly id: string; readonly state: Schema[T]['state']; readonly epoch: number };
  readonly to: Schema[T]['state'];
  readonly set?: Updateable<Schema[T]>;
}

/** Moves `row` to `to`, adds one to its epoch, and sets `set`. Throws `conflict` when somebody else moved it first. Returns the new epoch. */
export async function move<T extends Stateful>(
  trx: Transaction<Schema>,
  table: T,
  row: Move<T>['row'],
  to: Move<T>['to'],
  set: Move<T>['set'] = {},
): Promise<number> {
  await moveAll(trx, table, [{ row, to, set }]);
  return row.epoch + 1;
}

/** The same for many rows, in one statement for all that set the same columns. Throws `conflict` when one was moved first. */
export async function moveAll<T extends Stateful>(trx: Transaction<Schema>, table: T, moves: readonly Move<T>[]): Promise<void> {
  const columnsOf = ({ set = {} }: Move<T>) =>
    Object.keys(set)
      .filter((column) => set[column as keyof typeof set] !== undefined)
      .sort();
  for (const group of Map.groupBy(moves, (one) => [one.row.state, ...columnsOf(one)].join()).values()) {
    const [first] = group;
    const sets = columnsOf(first as Move<T>).map((column) => `, "${column}" = v."${column}"`);
    const rows = group.map(({ row, to, set }) => ({ ...(set as object), id: row.id, epoch: row.epoch, state: to }));
    const text = `UPDATE "${table}" t SET state = v.state, epoch = t.epoch + 1${sets.join('')} FROM json_populate_recordset(NULL::"${table}", `;
    const { numAffectedRows } =
      await sql`${sql.raw(named(text))}${asJson(rows)}::json) v WHERE t.id = v.id AND t.epoch = v.epoch AND t.state = ${first?.row.state}`.execute(trx);
    if (numAffectedRows !== BigInt(group.length)) throw new Refusal('conflict');
  }
}

/** A string that was cut in the middle of a character is no JSON to PostgreSQL. */
const asJson = (rows: unknown): string => JSON.stringify(rows, (_, value: unknown) => (typeof value === 'string' ? value.toWellFormed() : value));

/** Table and columns make the text, of which there are few: each is prepared once on a connection. */
const names = new Map<string, string>();
function named(text: string): string {
  const name = names.get(text) ?? `move_${names.size}`;
  names.set(text, name);
  return `${prepared(name)} ${text}`;
}
