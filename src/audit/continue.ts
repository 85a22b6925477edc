/**
 * After a restore: the published log is longer than the one in the database. What was published cannot be taken back, so the
 * tree is continued as it was published: the hashes of its entries stand in `checkpoints.jsonl`, outside the database. An
 * event that waits for its index and has such a hash gets its place again; the text of the others is lost, and their hash
 * stays. No second tree is signed (invariant 20).
 */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { sql } from 'kysely';
import type { Db } from '../db/pool.ts';
import { NoteFault, openCheckpoint, type Signer } from './checkpoint.ts';
import { checkpointsFile } from './publication.ts';
import { publishedHead, SealRefused, sequencerLock } from './seal.ts';
import { insertLeaves, insertNodes, newestCheckpoint, storedTree } from './stored-tree.ts';
import { append, type CompletedNode, type Frontier, leafHash, readFrontier, rootOf } from './tree.ts';

/** What stands in place of an entry whose text was lost, where the log is exported: RFC 8785 JSON, like any entry. */
export const lostLine = (hash: Buffer): string => `{"hash":"${hash.toString('hex')}","lost":true}`;

/** How the id of such an entry's event begins; its index follows. */
export const lostPrefix = 'lost_';

export interface Continued {
  /** The entries that the database did not have: from, and up to without. */
  readonly from: number;
  readonly to: number;
  /** Of how many the text is there, and of how many it is lost. */
  readonly found: number;
  readonly lost: number;
}

interface Published {
  readonly at: string;
  readonly note: string;
  readonly leaves: readonly Buffer[];
}

/**
 * Takes over, in the caller's transaction and with nobody sealing beside it, every published checkpoint above those of the
 * database. Each must be signed by us and fit the hashes that go with it. Null when there is none. Throws `SealRefused`.
 */
export async function continueLog(db: Db, { signer, directory }: { readonly signer: Signer; readonly directory: string }): Promise<Continued | null> {
  await sql`SELECT pg_advisory_xact_lock(${sequencerLock}::bigint)`.execute(db);
  const head = await newestCheckpoint(db);
  const from = head?.size ?? 0;
  const frontier = await readFrontier(storedTree(db), from);
  if (head && !rootOf(frontier).equals(head.root)) throw new SealRefused('tree_damaged', `Its root at ${from} entries is another one.`);
  const waiting = await waitingByHash(db);
  let found = 0;
  for await (const checkpoint of publishedAbove(directory, from)) {
    const size = checkedSize(checkpoint, frontier.size, signer);
    if (size <= frontier.size) continue;
    const first = frontier.size;
    const nodes = appendAll(frontier, checkpoint, size);
    const ids = checkpoint.leaves.map((leaf, place) => waiting.get(leaf.toString('hex')) ?? `${lostPrefix}${first + place}`);
    const taken = ids.filter((id) => !id.startsWith(lostPrefix));
    found += taken.length;
    await insertLeaves(db, first, ids, checkpoint.leaves);
    await insertNodes(db, nodes);
    await sql`DELETE FROM audit_pending p USING audit_event e WHERE e.position = p.position AND e.id = ANY (${taken}::text[])`.execute(db);
    await db
      .insertInto('audit_checkpoint')
      .values({ size, root: rootOf(frontier), note: checkpoint.note, signed_at: new Date(checkpoint.at) })
      .execute();
  }
  const to = frontier.size;
  const published = (await publishedHead({ signer, directory }))?.size ?? 0;
  if (published > to)
    throw new SealRefused('published_unreadable', `${checkpointsFile} has no hashes of the entries ${to} to ${published - 1}: its end is missing.`);
  return to === from ? null : { from, to, found, lost: to - from - found };
}

function checkedSize({ note }: Published, here: number, signer: Signer): number {
  try {
    return openCheckpoint(note, signer.verifierKey).size;
  } catch (error) {
    if (error instanceof NoteFault) throw new SealRefused('published_foreign', `After entry ${here - 1}: ${error.message}`);
    throw error;
  }
}

function appendAll(frontier: Frontier, { note, leaves }: Published, size: number): CompletedNode[] {
  if (frontier.size + leaves.length !== size)
    throw new SealRefused(
      'published_unreadable',
      `${checkpointsFile} has no hashes of the entries ${frontier.size} to ${size - leaves.length - 1}: a line of it is missing.`,
    );
  const nodes = leaves.flatMap((leaf) => append(frontier, leaf));
  const [, , root] = note.split('\n');
  if (rootOf(frontier).toString('base64') !== root)
    throw new SealRefused('published_differs', `They part between the entries ${size - leaves.length} and ${size - 1}.`);
  return nodes;
}

/** Events without an index, by the hash that they will have. */
async function waitingByHash(db: Db): Promise<Map<string, string>> {
  const rows = await db
    .selectFrom('audit_pending as p')
    .innerJoin('audit_event as e', 'e.position', 'p.position')
    .select(['e.id', 'e.line'])
    .orderBy('p.position')
    .execute();
  return new Map(rows.map(({ id, line }) => [leafHash(line).toString('hex'), id]));
}

/** The published checkpoints of more than `size` entries. A torn last line counts as never written. */
async function* publishedAbove(directory: string, size: number): AsyncGenerator<Published> {
  const file = createReadStream(join(directory, checkpointsFile));
  const opened = new Promise<void>((resolve, reject) => file.once('open', () => resolve()).once('error', reject));
  await opened.catch((error: NodeJS.ErrnoException) => {
    throw new SealRefused('directory_unwritable', `${directory}: ${error.code}.`);
  });
  let number = 0;
  let torn: number | undefined;
  for await (const line of createInterface({ input: file, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (torn !== undefined) throw new SealRefused('published_unreadable', `Line ${torn} of ${checkpointsFile} is none.`);
    number += 1;
    const checkpoint = parsed(line);
    if (!checkpoint) torn = number;
    else if (Number(checkpoint.note.split('\n')[1]) > size) yield checkpoint;
  }
}

function parsed(line: string): Published | undefined {
  try {
    const { at, note, leaves } = JSON.parse(line) as { at?: unknown; note?: unknown; leaves?: unknown };
    if (typeof at !== 'string' || typeof note !== 'string' || !Array.isArray(leaves)) return undefined;
    return { at, note, leaves: leaves.map((leaf) => Buffer.from(String(leaf), 'hex')) };
  } catch {
    return undefined;
  }
}
