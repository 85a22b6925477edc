/**
 * The modelled PostgreSQL: rows with locks, READ COMMITTED, transactions that may fail at COMMIT with an outcome that nobody
 * is told, and its rules (rules.ts). Its clock is the world's.
 */
import { brokenRule } from './rules.ts';
import type { Proc, World } from './world.ts';

export type Row = { readonly [column: string]: unknown; readonly id: string };
export type Table = 'person' | 'request' | 'decision' | 'access_grant' | 'lease' | 'review' | 'outbox';

export interface Entry {
  readonly table: Table;
  readonly id: string;
  committed: Row | undefined;
  pending: Row | undefined;
  owner: Tx | undefined;
  readonly shares: Set<Tx>;
  waiters: (() => void)[];
}

/** One write of one row, in the order of the transaction. */
export interface Write {
  readonly table: Table;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
}

export interface Witnessed {
  readonly type: string;
  readonly request?: string;
  readonly grant?: string;
  readonly lease?: string;
  readonly data?: { readonly [key: string]: unknown };
}

export interface Tx {
  readonly proc: Proc | undefined;
  /** `now()` of this transaction. */
  readonly startedAt: number;
  state: 'open' | 'committing' | 'over';
  readonly held: Set<Entry>;
  readonly writes: Write[];
  readonly events: Witnessed[];
  waitsFor: Entry | undefined;
}

/** What the driver throws: a message for the log, the server's code, the rule that was broken. */
export class StoreError extends Error {
  readonly code: string;
  readonly constraint: string | undefined;
  constructor(code: string, message: string, constraint?: string) {
    super(`store: ${message}`);
    this.code = code;
    this.constraint = constraint;
  }
}

const statementTimeoutMs = 15_000;
/** Where a row comes from that says nothing of these columns. */
const defaults: Partial<Record<Table, Readonly<Record<string, unknown>>>> = {
  request: { epoch: 0, start_at: null, decided_at: null, incident: null },
  access_grant: { epoch: 0, end_reason: null, end_note: null, ending_at: null, ended_at: null },
  lease: {
    epoch: 0,
    handle: null,
    end_reason: null,
    revealed_at: null,
    revoking_at: null,
    cut_at: null,
    read_back_at: null,
    tries: 0,
    next_try_at: null,
    last_error: null,
  },
  review: { epoch: 0, closed_by: null, closed_at: null, verdict: null, notes: null },
};
const jsonColumns = new Set(['policy', 'target_grant', 'payload']);

export class Store {
  readonly world: World;
  readonly tables: Readonly<Record<Table, Map<string, Entry>>> = {
    person: new Map(),
    request: new Map(),
    decision: new Map(),
    access_grant: new Map(),
    lease: new Map(),
    review: new Map(),
    outbox: new Map(),
  };
  /** Rules of the database that a planted bug takes away with the code's own, since two locks hold one door. */
  readonly without: ReadonlySet<string>;
  readonly open = new Set<Tx>();
  /** Every committed event, oldest first. */
  readonly log: Witnessed[] = [];
  /** Who holds which duty, and how often each was taken. Each statement about them is a transaction of its own. */
  readonly duties = new Map<string, { readonly holder: string; readonly until: number }>();
  readonly dutyEpochs = new Map<string, number>();
  downUntil = 0;
  /** Chance of trouble at a COMMIT. */
  commitTrouble = 0;
  onCommit: (tx: Tx) => void = () => undefined;
  #next = 0;

  constructor(world: World, without: readonly string[]) {
    this.world = world;
    this.without = new Set(without);
  }

  begin(proc: Proc | undefined): Tx {
    const tx: Tx = { proc, startedAt: this.world.now, state: 'open', held: new Set(), writes: [], events: [], waitsFor: undefined };
    this.open.add(tx);
    return tx;
  }

  /** Before each statement: the way there, on which others may come in between. */
  async travel(tx: Tx | undefined): Promise<void> {
    const { world } = this;
    if (world.random.chance(world.chatter)) await world.wait(world.random.chance(0.02) ? world.random.between(100, 3_000) : world.random.between(0, 4));
    if (world.now < this.downUntil) {
      await world.wait(world.random.between(1, 50));
      throw new StoreError('ECONNREFUSED', 'connection refused');
    }
    if (tx && tx.state !== 'open') throw new StoreError('ECONNRESET', 'the connection was lost');
  }

  /** What this reader sees of a row. */
  seen = (entry: Entry, tx: Tx | undefined): Row | undefined => (tx && entry.owner === tx && entry.pending ? entry.pending : entry.committed);

  rows<T = Row>(table: Table): T[] {
    const all: T[] = [];
    for (const entry of this.tables[table].values()) if (entry.committed) all.push(entry.committed as T);
    return all;
  }

  row<T = Row>(table: Table, id: string): T | undefined {
    return this.tables[table].get(id)?.committed as T | undefined;
  }

  blocked = (entry: Entry, tx: Tx, mode: 'share' | 'update'): boolean =>
    (entry.owner !== undefined && entry.owner !== tx) || (mode === 'update' && [...entry.shares].some((other) => other !== tx));

  /** Waits for the row's lock as long as the server lets a statement last. Throws `40P01` in a deadlock. */
  async lock(tx: Tx, entry: Entry, mode: 'share' | 'update'): Promise<void> {
    const until = this.world.now + statementTimeoutMs;
    while (this.blocked(entry, tx, mode)) {
      tx.waitsFor = entry;
      if (this.#deadlocked(tx, tx, new Set())) {
        tx.waitsFor = undefined;
        throw new StoreError('40P01', 'deadlock detected');
      }
      await this.#released(entry, until);
      tx.waitsFor = undefined;
      if (tx.state !== 'open') throw new StoreError('ECONNRESET', 'the connection was lost');
      if (this.world.now >= until && this.blocked(entry, tx, mode)) throw new StoreError('57014', 'canceling statement due to statement timeout');
    }
    if (mode === 'share') entry.shares.add(tx);
    else entry.owner = tx;
    tx.held.add(entry);
  }

  #released(entry: Entry, until: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { world } = this;
    const proc = world.current;
    entry.waiters.push(() => world.after(0, proc, resolve));
    world.after(until - world.now, proc, resolve);
    return promise;
  }

  #deadlocked(tx: Tx, first: Tx, seen: Set<Tx>): boolean {
    const entry = tx.waitsFor;
    if (!entry) return false;
    for (const holder of [...(entry.owner ? [entry.owner] : []), ...entry.shares]) {
      if (holder === tx) continue;
      if (holder === first) return true;
      if (seen.has(holder)) continue;
      seen.add(holder);
      if (this.#deadlocked(holder, first, seen)) return true;
    }
    return false;
  }

  insert(tx: Tx, table: Table, given: Readonly<Record<string, unknown>>): void {
    const id = table === 'outbox' ? String(++this.#next).padStart(9, '0') : String(given['id']);
    const now = new Date(tx.startedAt);
    const row: Record<string, unknown> = { created_at: now, ...(table === 'decision' ? { decided_at: now } : {}), ...defaults[table], ...given };
    for (const column of jsonColumns) if (typeof row[column] === 'string') row[column] = JSON.parse(row[column] as string);
    const entry: Entry = { table, id, committed: undefined, pending: undefined, owner: tx, shares: new Set(), waiters: [] };
    if (this.tables[table].has(id)) throw new StoreError('23505', `duplicate key in ${table}`, `${table}_pkey`);
    this.tables[table].set(id, entry);
    tx.held.add(entry);
    this.write(tx, entry, { ...row, id });
  }

  /** Writes a row that this transaction has locked; undefined deletes it. */
  write(tx: Tx, entry: Entry, after: Row | undefined): void {
    const before = this.seen(entry, tx);
    const broken = after && brokenRule(this, entry.table, after, tx);
    if (broken) throw new StoreError('23514', `the rule ${broken} was broken`, broken);
    entry.pending = after ?? { id: entry.id, deleted: true };
    if (entry.table !== 'outbox') tx.writes.push({ table: entry.table, before, after });
  }

  /** COMMIT, whose answer may be lost: then an error is thrown and nobody knows. */
  async commit(tx: Tx): Promise<void> {
    const { world } = this;
    const trouble = world.random.chance(this.commitTrouble) ? world.random.pick(['before', 'after', 'serialization'] as const) : undefined;
    if (trouble === 'serialization') {
      this.rollback(tx);
      throw new StoreError('40001', 'could not serialize access');
    }
    if (trouble === 'before') this.rollback(tx);
    else if (world.random.chance(world.chatter)) {
      // The word is on its way: whatever becomes of who sent it, the server hears it.
      tx.state = 'committing';
      world.after(world.random.between(0, 3), undefined, () => this.#apply(tx));
      await world.wait(world.random.between(3, 6));
    } else this.#apply(tx);
    if (trouble || !this.#applied.has(tx)) throw new StoreError('ECONNRESET', 'the connection was lost during COMMIT');
  }

  readonly #applied = new WeakSet<Tx>();

  #apply(tx: Tx): void {
    if (tx.state === 'over') return;
    for (const entry of tx.held) {
      if (entry.owner !== tx || !entry.pending) continue;
      entry.committed = entry.pending['deleted'] ? undefined : entry.pending;
      entry.pending = undefined;
      if (!entry.committed) this.tables[entry.table].delete(entry.id);
    }
    this.log.push(...tx.events);
    this.#applied.add(tx);
    this.#finish(tx);
    this.onCommit(tx);
  }

  /** Also what happens to the transactions of a process that died. */
  rollback(tx: Tx): void {
    if (tx.state === 'over') return;
    for (const entry of tx.held) {
      if (entry.owner !== tx) continue;
      entry.pending = undefined;
      if (!entry.committed) this.tables[entry.table].delete(entry.id);
    }
    this.#finish(tx);
  }

  #finish(tx: Tx): void {
    tx.state = 'over';
    this.open.delete(tx);
    for (const entry of tx.held) {
      if (entry.owner === tx) entry.owner = undefined;
      entry.shares.delete(tx);
      const { waiters } = entry;
      if (waiters.length === 0) continue;
      entry.waiters = [];
      for (const wake of waiters) wake();
    }
  }

  /** The server is killed and comes back after so long: what was not committed is gone. */
  restart(ms: number): void {
    this.downUntil = this.world.now + ms;
    for (const tx of [...this.open]) this.rollback(tx);
  }
}
