/** The few texts of SQL in the code, as the modelled store reads them. Any other fails loudly. */
import type { Row, Store, Table, Tx, Witnessed } from './store.ts';

interface RawNode {
  readonly sqlFragments: readonly string[];
  readonly parameters: readonly Node[];
}
export type Node = RawNode | { readonly value: unknown };
/** What the tag `sql` gives. */
export interface Raw {
  toOperationNode(): Node;
}
export interface AliasedRaw {
  readonly expression: Raw;
  readonly alias: string;
}

export const isRaw = (value: unknown): value is Raw => typeof value === 'object' && value !== null && 'toOperationNode' in value;
/** As it can be compared. */
export const plain = (value: unknown): unknown => (value instanceof Date ? value.getTime() : value);

/** The text of a raw fragment with `?` for what was put in, and those. */
export function flat(node: Node): { text: string; values: unknown[] } {
  if (!('sqlFragments' in node)) return { text: '?', values: [node.value] };
  let text = node.sqlFragments[0] ?? '';
  const values: unknown[] = [];
  for (const [index, parameter] of node.parameters.entries()) {
    const inner = flat(parameter);
    text += inner.text + (node.sqlFragments[index + 1] ?? '');
    values.push(...inner.values);
  }
  return { text, values };
}

const shape = /^now\(\)(?: ([+-]) (?:\? \* interval '1 second'|interval '(\d+) seconds'))?$/;

/** The value of `now()` with or without a distance. */
export function timeOf(raw: Raw, now: number): Date {
  const { text, values } = flat(raw.toOperationNode());
  const found = shape.exec(text);
  if (!found) throw new TypeError(`the modelled store does not know: ${text}`);
  const seconds = found[1] === undefined ? 0 : Number(found[2] ?? values[0]);
  return new Date(now + (found[1] === '-' ? -seconds : seconds) * 1_000);
}

const eventColumns = 11;

/** As src/db/stores/move.ts moves rows: each only from the state and epoch that it was read in. */
async function moveAll(store: Store, tx: Tx | undefined, text: string, values: readonly unknown[]): Promise<{ rows: []; numAffectedRows: bigint }> {
  const [, table, sets = ''] =
    /UPDATE "(\w+)" t SET (.+) FROM json_populate_recordset\(NULL::"\1", \?::json\) v WHERE t\.id = v\.id AND t\.epoch = v\.epoch AND t\.state = \?$/.exec(
      text,
    ) ?? [];
  if (!tx || !table) throw new TypeError(`the modelled store does not know: ${text}`);
  const columns = [...sets.matchAll(/"(\w+)" = v\."\1"/g)].map((found) => found[1] ?? '');
  let changed = 0n;
  for (const to of JSON.parse(values[0] as string) as Row[]) {
    const entry = store.tables[table as Table].get(to.id);
    const stands = (row: Row | undefined) => row?.['epoch'] === to['epoch'] && row?.['state'] === values[1];
    if (!entry || !stands(store.seen(entry, tx))) continue;
    await store.lock(tx, entry, 'update');
    const row = store.seen(entry, tx);
    if (!row || !stands(row)) continue;
    const set = columns.map((column) => [column, column.endsWith('_at') && to[column] ? new Date(to[column] as string) : (to[column] ?? null)]);
    const epoch = Number(row['epoch']) + (sets.includes('epoch = t.epoch + 1') ? 1 : 0);
    store.write(tx, entry, { ...row, ...Object.fromEntries(set), state: to['state'], epoch });
    changed++;
  }
  return { rows: [], numAffectedRows: changed };
}

/** As src/db/stores/duties.ts asks: what is free or ran out is taken with a higher epoch, what is the asker's own is extended. */
function askDuties(store: Store, values: readonly unknown[]): Record<string, unknown>[] {
  const [wanted, holder, , , , lifeMs] = values as [string[], string, string, string, string, number];
  if (values.length !== 8) throw new TypeError('the question for duties has another form than the model knows');
  const { now } = store.world;
  return ['expire-grants', 'prune', 'seal-audit'].map((name) => {
    const duty = store.duties.get(name);
    const ours = wanted.includes(name) && (!duty || duty.holder === holder || duty.until <= now);
    const valid = duty?.holder === holder && duty.until > now;
    if (ours) {
      if (!valid) store.dutyEpochs.set(name, (store.dutyEpochs.get(name) ?? 0) + 1);
      store.duties.set(name, { holder, until: now + lifeMs });
    }
    return { name, epoch: ours ? store.dutyEpochs.get(name) : null, doneMsAgo: null };
  });
}

/** The raw statements of `commit.ts`, of the duties and `start-workers.ts`. */
export async function runRaw(store: Store, tx: Tx | undefined, node: Node): Promise<{ rows: Record<string, unknown>[] }> {
  await store.travel(tx);
  const { text, values } = flat(node);
  // No restore is modelled: quarantine has its own tests on a real database.
  if (text === 'SELECT id FROM quarantine WHERE lifted_at IS NULL') return { rows: [] };
  if (
    /^SELECT (date_trunc\('milliseconds', now\(\)\)|clock_timestamp\(\)) AS now(, EXISTS \(SELECT FROM quarantine WHERE lifted_at IS NULL\) AS quarantined)?$/.test(
      text,
    )
  )
    return { rows: [{ quarantined: false, now: new Date(text.includes('clock') ? store.world.now : (tx?.startedAt ?? store.world.now)) }] };
  if (text.startsWith('/* prepared ask_duties */')) return { rows: askDuties(store, values) };
  if (text.startsWith('UPDATE duty SET holder = NULL')) {
    const [holder, names] = values as [string, string[]];
    for (const name of names) if (store.duties.get(name)?.holder === holder) store.duties.delete(name);
    return { rows: [] };
  }
  if (text.includes(' FROM json_populate_recordset(')) return moveAll(store, tx, text, values);
  if (!tx || !/INSERT INTO (audit_event|outbox)/.test(text)) throw new TypeError(`the modelled store does not know: ${text.slice(0, 80)}`);
  const messages = (text.split('INSERT INTO outbox (topic, payload) VALUES ')[1] ?? '').split('(?, ?)').length - 1;
  const events = (values.length - messages * 2) / eventColumns;
  if (!Number.isInteger(events)) throw new TypeError('the witness statement has another form than the model knows');
  for (let at = 0; at < events; at++) tx.events.push(JSON.parse(values[at * eventColumns + eventColumns - 1] as string) as Witnessed);
  for (let at = 0; at < messages; at++) {
    const first = events * eventColumns + at * 2;
    store.insert(tx, 'outbox', { topic: values[first], payload: values[first + 1] });
  }
  return { rows: [] };
}
