/**
 * The sequencer: it gives audit events their index, appends them to the tree, signs a checkpoint and publishes it
 * outside the database. One at a time, whoever runs it, by an advisory lock. It signs nothing that does not contain
 * what was published and signed before; where that cannot be shown, it refuses and goes on refusing (invariant 20).
 */
import { sql } from 'kysely';
import type pg from 'pg';
import { type Db, openDb } from '../db/pool.ts';
import { assertHeld, type Hold, HoldLost, isHeld } from '../db/stores/duties.ts';
import { failpoint as atFailpoint, type Failpoint, failpoints } from '../domain/failpoint.ts';
import { type Checkpoint, checkpointBody, NoteFault, openCheckpoint, type Signer } from './checkpoint.ts';
import { appendLines, PublicationRace, prepareDirectory, readPublishedNotes, writeLatest } from './publication.ts';
import { type CheckpointLine, checkpointLines, insertLeaves, insertNodes, newestCheckpoint, type StoredCheckpoint, storedTree } from './stored-tree.ts';
import { append, type CompletedNode, emptyFrontier, type Frontier, leafHash, readFrontier, readRoot, rootOf, TreeDamaged } from './tree.ts';

/** Most events sealed by one checkpoint. */
export const batchSize = 4096;
/** The advisory lock of whoever writes the tree. */
export const sequencerLock = 6962;

export const sealRefusals = {
  directory_unwritable: 'The directory of checkpoints cannot be read or written.',
  published_unreadable: 'What was published last cannot be read as a checkpoint.',
  published_foreign: 'What was published last was not signed by our key.',
  published_ahead: 'A larger tree was published than the database holds.',
  published_differs: 'The tree in the database does not contain the tree that was published.',
  tree_damaged: 'The tree in the database is not the one that was signed.',
  event_missing: 'An event that waits for its index is gone.',
} as const;
export type SealRefusalCode = keyof typeof sealRefusals;

/** Why nothing was signed or published, in words. */
export class SealRefused extends Error {
  override readonly name = 'SealRefused';
  readonly code: SealRefusalCode;
  constructor(code: SealRefusalCode, detail: string) {
    super(`${sealRefusals[code]} ${detail}`);
    this.code = code;
  }
}

export interface SealLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** Steps between two side effects, at which a test may kill or stop the process. */
export type SealFailpoint = Extract<Failpoint, `seal.${string}`>;
/** All of them. */
export const sealFailpoints = (Object.keys(failpoints) as Failpoint[]).filter((name): name is SealFailpoint => name.startsWith('seal.'));

export interface SealerOptions {
  readonly pool: pg.Pool;
  readonly signer: Signer;
  /** Where checkpoints are published. Made with mode 0700 when missing. */
  readonly directory: string;
  readonly log: SealLog;
  readonly failpoint?: (name: SealFailpoint) => void | Promise<void>;
}

export interface SealerStatus {
  /** Entries under the newest checkpoint that this process saw, and those of them that were published. */
  readonly size: number;
  readonly publishedSize: number;
  readonly signedAt: Date | null;
  /** Why sealing is refused, while it is. A person must look. */
  readonly refused: { readonly code: SealRefusalCode; readonly message: string } | null;
}

export interface Sealer {
  /**
   * Seals what waits, at most 4096 events, and publishes what is signed. Null when nothing waited or another process is
   * sealing. Call again at once while `sealed` is 4096. With a hold nothing is sealed or published unless it is still held as it was (`HoldLost`).
   * Throws `SealRefused`, or what the database threw.
   */
  sealOnce(hold?: Hold): Promise<{ sealed: number; size: number } | null>;
  status(): SealerStatus;
  /** Waits for a run under way. The pool stays the caller's. */
  close(): Promise<void>;
}

type Context = SealerOptions & { readonly db: Db };
type Batch = { sealed: number; size: number; signedAt: Date | null; unpublished: boolean };

/** The sequencer of one process. Several may run: a lock lets one at a time seal. `close` ends what it holds. */
export function createSealer(given: SealerOptions): Sealer {
  const options = { failpoint: atFailpoint, ...given };
  const context: Context = { ...options, db: openDb(options.pool) };
  const now = { size: 0, publishedSize: 0, signedAt: null as Date | null, refused: null as SealerStatus['refused'] };
  let running: Promise<{ sealed: number; size: number } | null> | null = null;

  const run = async (hold: Hold | undefined): Promise<{ sealed: number; size: number } | null> => {
    try {
      const batch = await context.db.transaction().execute((db) =>
        locked(db, async () => {
          if (hold) await assertHeld(db, hold);
          return sealBatch({ ...context, db });
        }),
      );
      if (!batch) return null;
      Object.assign(now, { size: batch.size, signedAt: batch.signedAt });
      await options.failpoint?.('seal.committed');
      const publishedSize = batch.unpublished
        ? await context.db.transaction().execute((db) =>
            locked(db, async () => {
              if (hold && !(await isHeld(db, hold))) throw new HoldLost(hold);
              return publishMissing({ ...context, db });
            }),
          )
        : batch.size;
      if (publishedSize !== null) now.publishedSize = publishedSize;
      now.refused = null;
      return batch.sealed > 0 ? { sealed: batch.sealed, size: batch.size } : null;
    } catch (error) {
      const refused = asRefusal(error);
      if (!refused) throw error;
      if (now.refused?.message !== refused.message) options.log.error({ code: refused.code }, `Nothing is signed: ${refused.message}`);
      now.refused = { code: refused.code, message: refused.message };
      throw refused;
    }
  };
  return {
    sealOnce: (hold) => {
      running ??= run(hold).finally(() => {
        running = null;
      });
      return running;
    },
    status: () => ({ ...now }),
    close: async () => {
      await running?.catch(() => undefined);
    },
  };
}

function asRefusal(error: unknown): SealRefused | null {
  if (error instanceof SealRefused) return error;
  if (error instanceof TreeDamaged) return new SealRefused('tree_damaged', error.message);
  if (error instanceof NoteFault) return new SealRefused('tree_damaged', `A checkpoint in the database is not ours: ${error.message}`);
  return null;
}

/** After so long between two statements the server ends a sequencer's transaction: one that was stopped in it keeps nobody waiting. */
const idleMs = 2_500;

/** Runs `work` while this transaction holds the sequencer's lock; null when another one has it. */
async function locked<T>(db: Db, work: () => Promise<T>): Promise<T | null> {
  await sql.raw(`SET LOCAL idle_in_transaction_session_timeout = ${idleMs}`).execute(db);
  const { rows } = await sql<{ got: boolean }>`SELECT pg_try_advisory_xact_lock(${sequencerLock}::bigint) AS got`.execute(db);
  return rows[0]?.got ? await work() : null;
}

// ---- sealing

async function sealBatch(context: Context): Promise<Batch> {
  const { db, signer, failpoint } = context;
  const published = await readPublished(context);
  const head = await newestCheckpoint(db);
  const size = head?.size ?? 0;
  refuseIfAhead(published.newest, size);
  const unpublished = (published.appended?.size ?? 0) < size || (published.latest?.size ?? 0) < size;
  if (!unpublished && published.newest && head && !published.newest.root.equals(head.root)) refuseDiffers(published.newest.size);
  const lines = await takePending(db);
  if (lines.length === 0) return { sealed: 0, size, signedAt: head?.signedAt ?? null, unpublished };

  const frontier = await provenFrontier(context, head, published.newest);
  const { leaves, nodes } = appendAll(frontier, lines);
  await insertLeaves(
    db,
    size,
    lines.map(({ event_id }) => event_id),
    leaves,
  );
  await insertNodes(db, nodes);
  const root = rootOf(frontier);
  const note = signer.sign(checkpointBody({ origin: signer.name, size: frontier.size, root }));
  await failpoint?.('seal.signed');
  const { signed_at: signedAt } = await db
    .insertInto('audit_checkpoint')
    .values({ size: frontier.size, root, note, signed_at: sql<Date>`clock_timestamp()` })
    .returning('signed_at')
    .executeTakeFirstOrThrow();
  return { sealed: lines.length, size: frontier.size, signedAt, unpublished: true };
}

type Waiting = { event_id: string; line: string };

async function takePending(db: Db): Promise<Waiting[]> {
  const { rows } = await sql<{ position: number; event_id: string | null; line: string | null }>`
    WITH taken AS (
      DELETE FROM audit_pending WHERE position IN (SELECT position FROM audit_pending ORDER BY position LIMIT ${batchSize})
      RETURNING position
    )
    SELECT taken.position, e.id AS event_id, e.line FROM taken LEFT JOIN audit_event e ON e.position = taken.position ORDER BY taken.position`.execute(db);
  return rows.map(({ position, event_id, line }) => {
    if (event_id === null || line === null)
      throw new SealRefused('event_missing', `The event at position ${position} is in audit_pending but not in audit_event.`);
    return { event_id, line };
  });
}

/** The stored tree's frontier, after showing that it is the tree we signed last and that it contains what was published. */
async function provenFrontier({ db, signer }: Context, head: StoredCheckpoint | null, published: Checkpoint | null): Promise<Frontier> {
  const tree = storedTree(db);
  const { count } = await db.selectFrom('audit_leaf').select(sql<number>`coalesce(max(index) + 1, 0)`.as('count')).executeTakeFirstOrThrow();
  const size = head?.size ?? 0;
  if (count !== size) throw new SealRefused('tree_damaged', `It has ${count} entries, and the newest signed checkpoint says ${size}.`);
  const frontier = head ? await readFrontier(tree, size) : emptyFrontier();
  if (head) {
    const signed = openCheckpoint(head.note, signer.verifierKey);
    if (signed.size !== size || !signed.root.equals(rootOf(frontier))) throw new SealRefused('tree_damaged', `Its root at ${size} entries is another one.`);
  }
  if (published && !(await readRoot(tree, published.size)).equals(published.root)) refuseDiffers(published.size);
  return frontier;
}

function appendAll(frontier: Frontier, lines: readonly Waiting[]): { leaves: Buffer[]; nodes: CompletedNode[] } {
  const leaves = lines.map(({ line }) => leafHash(line));
  return { leaves, nodes: leaves.flatMap((leaf) => append(frontier, leaf)) };
}

// ---- publishing

interface Published {
  /** What the last whole line of `checkpoints.jsonl` holds, and what `latest` holds. */
  readonly appended: Checkpoint | null;
  readonly latest: Checkpoint | null;
  /** Where the next line belongs in `checkpoints.jsonl`, in bytes. */
  readonly end: number;
  /** The larger of the two. */
  readonly newest: Checkpoint | null;
}

/** The newest checkpoint that was published, checked to be ours; null while there is none. Throws `SealRefused`. */
export const publishedHead = async (where: Pick<SealerOptions, 'directory' | 'signer'>): Promise<Checkpoint | null> => (await readPublished(where)).newest;

async function readPublished({ directory, signer }: Pick<SealerOptions, 'directory' | 'signer'>): Promise<Published> {
  const notes = await inDirectory(directory, async () => {
    await prepareDirectory(directory);
    return await readPublishedNotes(directory);
  });
  const opened = (note: string | null): Checkpoint | null => {
    if (note === null) return null;
    try {
      return openCheckpoint(note, signer.verifierKey);
    } catch (error) {
      if (error instanceof NoteFault) throw new SealRefused('published_foreign', error.message);
      throw error;
    }
  };
  const appended = opened(notes.appended);
  const latest = opened(notes.latest);
  return { appended, end: notes.end, latest, newest: (latest?.size ?? 0) > (appended?.size ?? 0) ? latest : appended };
}

async function inDirectory<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SyntaxError) throw new SealRefused('published_unreadable', error.message);
    if (error instanceof PublicationRace) throw new SealRefused('directory_unwritable', error.message);
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof Error && typeof code === 'string' && 'syscall' in error) throw new SealRefused('directory_unwritable', `${directory}: ${code}.`);
    throw error;
  }
}

/**
 * Publishes every signed checkpoint that the directory lacks: those of this run, and those of a run that died before it
 * published. Answers with the size that is published now.
 */
async function publishMissing(context: Context): Promise<number> {
  const { db, directory, log, failpoint } = context;
  const { appended, end, newest } = await readPublished(context);
  const head = await newestCheckpoint(db);
  refuseIfAhead(newest, head?.size ?? 0);
  if (!head) return 0;
  if (!newest && (await db.selectFrom('audit_checkpoint').select('size').where('size', '<', head.size).limit(1).executeTakeFirst())) {
    log.warn({ size: head.size, directory }, 'Nothing is published in this directory: every checkpoint is written again from the beginning.');
  }
  await inDirectory(directory, async () => {
    await appendLines(directory, end, checkedLines(context, appended));
    await failpoint?.('seal.appended');
    await writeLatest(directory, head.note);
  });
  await failpoint?.('seal.published');
  return head.size;
}

/** Checkpoints above the one that was appended last, each shown to be signed by us and to be the tree of the leaves that go with it. */
async function* checkedLines({ db, signer }: Context, appended: Checkpoint | null): AsyncGenerator<CheckpointLine> {
  const above = appended?.size ?? 0;
  const frontier = await readFrontier(storedTree(db), above);
  if (appended && !rootOf(frontier).equals(appended.root)) refuseDiffers(above);
  for await (const line of checkpointLines(db, above)) {
    for (const leaf of line.leaves) append(frontier, leaf);
    const signed = openCheckpoint(line.note, signer.verifierKey);
    if (signed.size !== line.size || frontier.size !== line.size || !signed.root.equals(rootOf(frontier))) {
      throw new SealRefused('tree_damaged', `The checkpoint of ${line.size} entries, signed but not yet published, does not fit the stored tree.`);
    }
    yield line;
  }
}

function refuseIfAhead(published: Checkpoint | null, size: number): void {
  if (published && published.size > size) {
    throw new SealRefused('published_ahead', `Published: ${published.size} entries; database: ${size}. Was it restored from a backup?`);
  }
}

function refuseDiffers(size: number): never {
  throw new SealRefused('published_differs', `They part at or before entry ${size - 1}.`);
}
