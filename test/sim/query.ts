/**
 * Stands where kysely stands in front of the modelled store, so that the real commands run as they are: the part of its
 * interface that they use, and no more. What is not modelled fails loudly.
 */
import type { Db } from '../../src/db/pool.ts';
import { type AliasedRaw, flat, isRaw, type Node, plain, runRaw, timeOf } from './raw.ts';
import { type Entry, type Row, type Store, StoreError, type Table, type Tx } from './store.ts';

/** A row, and the one that is joined to it. */
interface Found {
  readonly entry: Entry;
  readonly row: Row;
  readonly other: Row | undefined;
}
type Read = (row: Row, other: Row | undefined) => unknown;
type Test = (row: Row, other: Row | undefined) => boolean;

/** How to read `column` or `table.column`. */
function reading(main: string, reference: string): Read {
  const dot = reference.indexOf('.');
  const column = reference.slice(dot + 1);
  return dot < 0 || reference.slice(0, dot) === main ? (row) => row[column] : (_, other) => other?.[column];
}

const compare: Readonly<Record<string, (left: never, right: never) => boolean>> = {
  '=': (left, right) => left === right,
  '<': (left, right) => left < right,
  '<=': (left, right) => left <= right,
  '>': (left, right) => left > right,
  '>=': (left, right) => left >= right,
};

abstract class Filtered {
  protected readonly store: Store;
  protected readonly tx: Tx | undefined;
  protected readonly table: Table;
  readonly #given: (readonly [Read, string, unknown])[] = [];
  constructor(store: Store, tx: Tx | undefined, table: Table) {
    this.store = store;
    this.tx = tx;
    this.table = table;
  }
  where(reference: string, operator: string, value: unknown): this {
    this.#given.push([reading(this.table, reference), operator, value]);
    return this;
  }
  /** All conditions, with `now()` as it is for this statement. */
  protected test(): Test {
    const now = this.tx?.startedAt ?? this.store.world.now;
    const tests = this.#given.map(([read, operator, value]): Test => {
      if (operator === 'not in') return (row, other) => !(value as unknown[]).includes(read(row, other));
      if (operator === 'is not') return (row, other) => read(row, other) !== value;
      if (operator === 'in') return (row, other) => (value as unknown[]).includes(read(row, other));
      const wanted = plain(isRaw(value) ? timeOf(value, now) : value);
      const holds = compare[operator];
      if (!holds) throw new TypeError(`the modelled store does not know the operator ${operator}`);
      return (row, other) => {
        const is = read(row, other);
        // As in SQL, nothing is equal to NULL, nor less or more.
        return is !== null && is !== undefined && wanted !== null && holds(plain(is) as never, wanted as never);
      };
    });
    return (row, other) => tests.every((holds) => holds(row, other));
  }
  protected now = (): number => this.tx?.startedAt ?? this.store.world.now;
}

class Select extends Filtered {
  #joined: { table: Table; key: Read } | undefined;
  #columns: (string | AliasedRaw)[] | undefined;
  #order: [string, boolean] | undefined;
  #limit = Number.POSITIVE_INFINITY;
  #lock: 'share' | 'update' | undefined;
  #skip = false;

  innerJoin(table: Table, left: string, right: string): this {
    const [own, id] = left.startsWith(`${table}.`) ? [right, left] : [left, right];
    if (id !== `${table}.id`) throw new TypeError('the modelled store joins by id only');
    this.#joined = { table, key: reading(this.table, own) };
    return this;
  }
  select(columns: string | AliasedRaw | readonly (string | AliasedRaw)[]): this {
    this.#columns = [...(this.#columns ?? []), ...(Array.isArray(columns) ? columns : [columns])];
    return this;
  }
  selectAll(): this {
    return this;
  }
  orderBy(column: string, direction: 'asc' | 'desc' = 'asc'): this {
    this.#order = [column, direction === 'desc'];
    return this;
  }
  limit(count: number): this {
    this.#limit = count;
    return this;
  }
  forUpdate(): this {
    this.#lock = 'update';
    return this;
  }
  forNoKeyUpdate(): this {
    return this.forUpdate();
  }
  forShare(): this {
    this.#lock = 'share';
    return this;
  }
  skipLocked(): this {
    this.#skip = true;
    return this;
  }

  async execute(): Promise<Record<string, unknown>[]> {
    await this.store.travel(this.tx);
    const holds = this.test();
    let found: Found[] = [];
    for (const entry of this.store.tables[this.table].values()) {
      const row = this.store.seen(entry, this.tx);
      if (!row) continue;
      const other = this.#otherOf(row);
      if ((other || !this.#joined) && holds(row, other)) found.push({ entry, row, other });
    }
    const order = this.#order;
    if (order) {
      const read = reading(this.table, order[0]);
      found.sort((a, b) => by(read(a.row, a.other), read(b.row, b.other), order[1]));
    }
    if (found.length > this.#limit) found.length = this.#limit;
    if (this.#lock) found = await this.#lockAll(found, holds, this.#lock);
    const counted = this.#counts();
    return counted === undefined ? found.map((one) => this.#shown(one)) : [{ [counted]: found.length }];
  }

  async executeTakeFirst(): Promise<Record<string, unknown> | undefined> {
    return (await this.execute())[0];
  }
  async executeTakeFirstOrThrow(): Promise<Record<string, unknown>> {
    const first = await this.executeTakeFirst();
    if (!first) throw new StoreError('no_row', `no row of ${this.table}`);
    return first;
  }

  /** Locks one row after the other; each is read again once it is held, and judged again. */
  async #lockAll(found: readonly Found[], holds: Test, mode: 'share' | 'update'): Promise<Found[]> {
    const { tx } = this;
    if (!tx) throw new TypeError('a lock outside of a transaction');
    const held: Found[] = [];
    for (const { entry, other } of found) {
      if (this.#skip && this.store.blocked(entry, tx, mode)) continue;
      await this.store.lock(tx, entry, mode);
      const row = this.store.seen(entry, tx);
      if (row && holds(row, other)) held.push({ entry, row, other });
    }
    return held;
  }

  #otherOf(row: Row): Row | undefined {
    if (!this.#joined) return undefined;
    const entry = this.store.tables[this.#joined.table].get(String(this.#joined.key(row, undefined)));
    return entry && this.store.seen(entry, this.tx);
  }

  #counts(): string | undefined {
    const only = this.#columns?.[0];
    return typeof only === 'object' && flat(only.expression.toOperationNode()).text.startsWith('count(') ? only.alias : undefined;
  }

  #shown({ row, other }: Found): Record<string, unknown> {
    if (!this.#columns) return { ...row };
    const shown: Record<string, unknown> = {};
    for (const column of this.#columns) {
      if (typeof column !== 'string') shown[column.alias] = timeOf(column.expression, this.now());
      else {
        const [reference = '', alias] = column.split(' as ');
        shown[alias ?? reference.slice(reference.indexOf('.') + 1)] = reading(this.table, reference)(row, other);
      }
    }
    return shown;
  }
}

const by = (left: unknown, right: unknown, down: boolean): number => {
  const [a, b] = [plain(left) as number, plain(right) as number];
  return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
};

class Change extends Filtered {
  readonly #kind: 'update' | 'delete';
  #set: Readonly<Record<string, unknown>> = {};
  constructor(store: Store, tx: Tx | undefined, table: Table, kind: 'update' | 'delete') {
    super(store, tx, table);
    this.#kind = kind;
  }
  set(values: Readonly<Record<string, unknown>>): this {
    this.#set = values;
    return this;
  }
  async execute(): Promise<{ numUpdatedRows: bigint }[]> {
    const { tx } = this;
    if (!tx) throw new TypeError('a write outside of a transaction');
    await this.store.travel(tx);
    const holds = this.test();
    let changed = 0n;
    for (const entry of [...this.store.tables[this.table].values()]) {
      const row = this.store.seen(entry, tx);
      if (!row || !holds(row, undefined)) continue;
      await this.store.lock(tx, entry, 'update');
      const now = this.store.seen(entry, tx);
      if (!now || !holds(now, undefined)) continue;
      this.store.write(tx, entry, this.#kind === 'delete' ? undefined : { ...now, ...this.#set });
      changed++;
    }
    return [{ numUpdatedRows: changed }];
  }
  async executeTakeFirst(): Promise<{ numUpdatedRows: bigint } | undefined> {
    return (await this.execute())[0];
  }
}

class Insert {
  readonly #store: Store;
  readonly #tx: Tx | undefined;
  readonly #table: Table;
  #values: Readonly<Record<string, unknown>> = {};
  constructor(store: Store, tx: Tx | undefined, table: Table) {
    this.#store = store;
    this.#tx = tx;
    this.#table = table;
  }
  values(values: Readonly<Record<string, unknown>>): this {
    this.#values = values;
    return this;
  }
  async execute(): Promise<void> {
    if (!this.#tx) throw new TypeError('a write outside of a transaction');
    await this.#store.travel(this.#tx);
    this.#store.insert(this.#tx, this.#table, this.#values);
  }
}

const doors = (store: Store, tx: Tx | undefined) => ({
  selectFrom: (table: Table) => new Select(store, tx, table),
  insertInto: (table: Table) => new Insert(store, tx, table),
  updateTable: (table: Table) => new Change(store, tx, table, 'update'),
  deleteFrom: (table: Table) => new Change(store, tx, table, 'delete'),
  /** What `sql` asks for to run itself. */
  getExecutor: () => ({
    transformQuery: (node: unknown) => node,
    compileQuery: (node: unknown) => node,
    executeQuery: (node: Node) => runRaw(store, tx, node),
  }),
});

/** The store as one process has it in its hands. */
export function dbOf(store: Store): Db {
  const transaction = () => ({
    async execute<T>(body: (trx: ReturnType<typeof doors>) => Promise<T>): Promise<T> {
      await store.travel(undefined);
      const tx = store.begin(store.world.current);
      let value: T;
      try {
        value = await body(doors(store, tx));
      } catch (error) {
        if (tx.state === 'open') store.rollback(tx);
        throw error;
      }
      await store.travel(tx).catch((error: unknown) => {
        if (tx.state === 'open') store.rollback(tx);
        throw error;
      });
      await store.commit(tx);
      return value;
    },
  });
  return { ...doors(store, undefined), transaction } as unknown as Db;
}
