/** The tree as it lies in the database: the reader for `tree.ts`, and the checkpoint lines that are published and exported. */
import { sql } from 'kysely';
import type { Db } from '../db/pool.ts';
import type { CompletedNode, TreeReader } from './tree.ts';

/** Reads stored hashes through `db`, which may be a transaction. */
export const storedTree = (db: Db): TreeReader => ({
  leafHashes: async (from, to) => {
    const rows = await db.selectFrom('audit_leaf').select('hash').where('index', '>=', from).where('index', '<', to).orderBy('index').execute();
    return rows.map((row) => row.hash);
  },
  nodes: async (level, from, to) => {
    const rows = await db
      .selectFrom('audit_node')
      .select('hash')
      .where('level', '=', level)
      .where('index', '>=', from)
      .where('index', '<', to)
      .orderBy('index')
      .execute();
    return rows.map((row) => row.hash);
  },
});

export interface StoredCheckpoint {
  readonly size: number;
  readonly root: Buffer;
  readonly note: string;
  readonly signedAt: Date;
}

/** The newest signed checkpoint, or null while nothing was sealed. */
export async function newestCheckpoint(db: Db): Promise<StoredCheckpoint | null> {
  const row = await db.selectFrom('audit_checkpoint').selectAll().orderBy('size', 'desc').limit(1).executeTakeFirst();
  return row ? { size: row.size, root: row.root, note: row.note, signedAt: row.signed_at } : null;
}

/** Puts the hashes of entries from index `from` on, each with the id of its event. */
export async function insertLeaves(db: Db, from: number, ids: readonly string[], hashes: readonly Buffer[]): Promise<void> {
  const indexes = ids.map((_, place) => from + place);
  await sql`INSERT INTO audit_leaf (index, event_id, hash) SELECT * FROM unnest(${indexes}::bigint[], ${ids}::text[], ${hashes}::bytea[])`.execute(db);
}

/** Puts the hashes of whole subtrees. */
export async function insertNodes(db: Db, nodes: readonly CompletedNode[]): Promise<void> {
  if (nodes.length > 0)
    await db
      .insertInto('audit_node')
      .values(nodes.map((node) => ({ ...node })))
      .execute();
}

export interface CheckpointLine extends StoredCheckpoint {
  /** Hashes of the entries since the checkpoint before. */
  readonly leaves: readonly Buffer[];
  /** The line of `checkpoints.jsonl`, with its newline. */
  readonly line: string;
}

const page = 32;

/** The checkpoints above `aboveSize`, in order, each with its line. Holds one checkpoint's leaves at a time. */
export async function* checkpointLines(db: Db, aboveSize: number): AsyncGenerator<CheckpointLine> {
  const tree = storedTree(db);
  let before = aboveSize;
  for (;;) {
    const rows = await db.selectFrom('audit_checkpoint').selectAll().where('size', '>', before).orderBy('size').limit(page).execute();
    for (const row of rows) {
      const leaves = await tree.leafHashes(before, row.size);
      const line = `${JSON.stringify({ at: row.signed_at.toISOString(), note: row.note, leaves: leaves.map((leaf) => leaf.toString('hex')) })}\n`;
      yield { size: row.size, root: row.root, note: row.note, signedAt: row.signed_at, leaves, line };
      before = row.size;
    }
    if (rows.length < page) return;
  }
}
