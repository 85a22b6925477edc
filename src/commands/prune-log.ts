/**
 * Deletes the beginning of the audit log, once it is archived: the text of entries, never their hashes, and never a checkpoint. It runs as the role that
 * owns the tables, by hand; nothing in a running Halligan can do it. First an export of the whole log is verified as an auditor would, against
 * the published checkpoints and the public key, and compared with every hash in the database. What is not over stays.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import type { Logger } from 'pino';
import { readPruned } from '../audit/pruned.ts';
import { checkpointsFile } from '../audit/publication.ts';
import { leafHash } from '../audit/tree.ts';
import { verifyExport } from '../audit/verify.ts';
import type { Db } from '../db/pool.ts';
import { commit } from './commit.ts';

export const pruneRefusals = {
  export_not_verified: 'The export, the checkpoints and the key do not fit together.',
  export_differs: 'The export is not the log of this database.',
  not_sealed: 'No published checkpoint is over the export or a part of it.',
  unfinished: 'An entry is about a request that is not over.',
  nothing_to_prune: 'There is nothing to delete.',
  quarantined: 'Halligan is in quarantine: the database was restored, and nothing is deleted from it.',
  pruned_meanwhile: 'Somebody else prunes the log at this moment.',
} as const;
export type PruneRefusalCode = keyof typeof pruneRefusals;

/** Why nothing (more) was deleted, in words. */
export class PruneRefused extends Error {
  override readonly name = 'PruneRefused';
  readonly code: PruneRefusalCode;
  constructor(code: PruneRefusalCode, detail = '') {
    super(`${pruneRefusals[code]}${detail && ` ${detail}`}`);
    this.code = code;
  }
}

export interface PruneOptions {
  /** An export of the whole log, from entry 0; it may end before the newest entry. */
  readonly exportFile: string;
  /** The published checkpoints: their file, or the directory of it. */
  readonly checkpoints: string;
  /** The verifier key. */
  readonly key: string;
  /** Entries from the first that is not older on are kept. */
  readonly before: Date;
  /** Told now and then how far it is, in entries. */
  readonly onProgress?: (step: 'verified' | 'compared' | 'deleted', entries: number) => void;
}

export interface PrunePlan {
  /** From this entry, up to and without `to`. */
  readonly from: number;
  readonly to: number;
  /** When the first and the last of them were written. */
  readonly firstAt: string;
  readonly lastAt: string;
  readonly exportSha256: string;
  /** The size of the newest checkpoint that the export was verified against. */
  readonly checkpoint: number;
  readonly before: Date;
}

const pageEntries = 5_000;
/** Entries deleted in one transaction, each with its own witness. */
export const entriesAtOnce = 20_000;

/** Verifies and compares everything; changes nothing. Throws `PruneRefused`. */
export async function planPrune(db: Db, options: PruneOptions): Promise<PrunePlan> {
  const { exportFile, key, before, onProgress = () => undefined } = options;
  const folder = await mkdtemp(join(tmpdir(), 'halligan-prune-'));
  try {
    const { sha256, lines } = await readThrough(exportFile);
    const cut = await checkpointsUpTo(options.checkpoints, lines, join(folder, checkpointsFile));
    const result = await verifyExport({
      log: exportFile,
      checkpoints: cut,
      key,
      allowUnsealed: true,
      onProgress: (entries) => onProgress('verified', entries),
    });
    if (!result.ok) throw new PruneRefused('export_not_verified', `${result.problem}: ${result.message}`);
    const { first } = await readPruned(db);
    const range = await compare(db, exportFile, { first, size: result.entries, before }, onProgress);
    if (range.to <= first)
      throw new PruneRefused('nothing_to_prune', `The first entry that is here is ${first}, and it is not older than ${before.toISOString()}.`);
    return { from: first, ...range, exportSha256: sha256, checkpoint: result.entries, before };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function readThrough(file: string): Promise<{ sha256: string; lines: number }> {
  const hash = createHash('sha256');
  let lines = 0;
  for await (const piece of createReadStream(file) as AsyncIterable<Buffer>) {
    hash.update(piece);
    for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, at + 1)) lines += 1;
  }
  return { sha256: hash.digest('hex'), lines };
}

/** The lines of a file, by LF alone: a leaf may hold other characters that some take for the end of a line. */
async function* linesOf(file: string): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of createReadStream(file) as AsyncIterable<Buffer>) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, piece]) : piece;
    let from = 0;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, from)) {
      yield bytes.toString('utf8', from, at);
      from = at + 1;
    }
    rest = bytes.subarray(from);
  }
  if (rest.length > 0) yield rest.toString('utf8');
}

/** Copies the checkpoints that are over no more than `entries`: an export may be older than the newest checkpoint. */
async function checkpointsUpTo(path: string, entries: number, to: string): Promise<string> {
  const file = (await stat(path)).isDirectory() ? join(path, checkpointsFile) : path;
  const out = await open(to, 'w');
  let any = false;
  try {
    for await (const line of linesOf(file)) {
      const size = Number(/"note":"[^"\\]*\\n(\d+)\\n/.exec(line)?.[1] ?? Number.NaN);
      // What cannot be read is the verifier's to judge.
      if (size > entries) break;
      await out.write(`${line}\n`);
      any ||= Number.isSafeInteger(size);
    }
  } finally {
    await out.close();
  }
  if (!any) throw new PruneRefused('not_sealed', `It has ${entries} entries. Are ${file} the checkpoints of this log?`);
  return to;
}

const lost = /^\{"hash":"([0-9a-f]{64})","lost":true\}$/;
const hashOf = (line: string): Buffer => {
  const found = lost.exec(line);
  return found ? Buffer.from(found[1] as string, 'hex') : leafHash(line);
};

interface Bounds {
  readonly first: number;
  readonly size: number;
  readonly before: Date;
}

/** Compares the export with the hashes in the database, entry by entry, and finds where the part that may go ends. */
async function compare(
  db: Db,
  file: string,
  { first, size, before }: Bounds,
  onProgress: NonNullable<PruneOptions['onProgress']>,
): Promise<Pick<PrunePlan, 'to' | 'firstAt' | 'lastAt'>> {
  let [index, to] = [0, size];
  let page: string[] = [];
  const found = { firstAt: '', lastAt: '' };
  const check = async (): Promise<void> => {
    const from = index - page.length;
    const rows = await db.selectFrom('audit_leaf').select('hash').where('index', '>=', from).where('index', '<', index).orderBy('index').execute();
    for (const [place, line] of page.entries())
      if (!rows[place]?.hash.equals(hashOf(line))) throw new PruneRefused('export_differs', `They part at entry ${from + place}.`);
    await refuseUnfinished(db, Math.max(from, first), Math.min(index, to));
    page = [];
    onProgress('compared', index);
  };
  for await (const line of linesOf(file)) {
    if (index >= size) break;
    const at = atOf(line);
    if (index >= first && to === size && at !== null) {
      if (Date.parse(at) >= before.getTime()) to = index;
      else {
        found.firstAt ||= at;
        found.lastAt = at;
      }
    }
    page.push(line);
    index += 1;
    if (page.length === pageEntries) await check();
  }
  if (page.length > 0) await check();
  return { to, ...found };
}

function atOf(line: string): string | null {
  try {
    const { at } = JSON.parse(line) as { at?: unknown };
    return typeof at === 'string' ? at : null;
  } catch {
    return null;
  }
}

/** What somebody still has, waits for, or owes a review for, keeps its story. A request that is deleted was over. */
async function refuseUnfinished(db: Db, from: number, to: number): Promise<void> {
  if (to <= from) return;
  const { rows } = await sql<{ index: number; at: Date; request: string }>`
    WITH about AS (
      SELECT coalesce(e.request_id, g.request_id) AS request, min(l.index) AS index, min(e.at) AS at
      FROM audit_leaf l JOIN audit_event e ON e.id = l.event_id LEFT JOIN access_grant g ON e.request_id IS NULL AND g.id = e.grant_id
      WHERE l.index >= ${from} AND l.index < ${to} GROUP BY 1)
    SELECT about.index, about.at, about.request FROM about JOIN request r ON r.id = about.request
    WHERE NOT request_over_since(r.id, 'infinity') ORDER BY about.index LIMIT 1`.execute(db);
  const [row] = rows;
  if (row) throw new PruneRefused('unfinished', `Entry ${row.index} is about ${row.request}. To prune what comes before it: --before ${row.at.toISOString()}`);
}

/**
 * Deletes what the plan says, in transactions of at most 20,000 entries. Each is witnessed in itself (`log.pruned`) and leaves a whole state, so one that was
 * cut short is taken up by planning again. Needs the role that owns the tables.
 */
export async function carryOutPrune(db: Db, log: Logger, plan: PrunePlan, onProgress: PruneOptions['onProgress'] = () => undefined): Promise<void> {
  for (let from = plan.from; from < plan.to; from += entriesAtOnce) {
    const to = Math.min(plan.to, from + entriesAtOnce);
    await commit({ db, log, nudge: () => undefined }, { system: 'audit-prune' }, async (tx) => {
      if (tx.quarantined) throw new PruneRefused('quarantined');
      await sql`LOCK TABLE audit_pruned IN SHARE ROW EXCLUSIVE MODE`.execute(tx.sql);
      if ((await readPruned(tx.sql)).first !== from) throw new PruneRefused('pruned_meanwhile');
      await refuseUnfinished(tx.sql, from, to);
      await sql`DELETE FROM audit_event e USING audit_leaf l WHERE l.event_id = e.id AND l.index >= ${from} AND l.index < ${to}`.execute(tx.sql);
      const { exportSha256, checkpoint, before } = plan;
      await tx.sql.insertInto('audit_pruned').values({ first_index: from, end_index: to, export_sha256: exportSha256, before }).execute();
      tx.witness({ type: 'log.pruned', data: { from, to, exportSha256, checkpoint, before: before.toISOString() } });
    });
    onProgress('deleted', to);
  }
}
