/** What of the log was deleted after it had been exported: the beginning, up to an index. Hashes, nodes and checkpoints of it stay, so that everything is still proven against them. */
import type { Db } from '../db/pool.ts';
import { Refusal } from '../domain/errors.ts';

export interface Pruned {
  /** The first entry whose text is still here; 0 when nothing was deleted. */
  readonly first: number;
  /** The SHA-256 (hex) of the export that holds the others; null when there are none. */
  readonly exportSha256: string | null;
}

/** How far the log was pruned. */
export async function readPruned(db: Db): Promise<Pruned> {
  const row = await db.selectFrom('audit_pruned').select(['end_index', 'export_sha256']).orderBy('end_index', 'desc').limit(1).executeTakeFirst();
  return { first: row?.end_index ?? 0, exportSha256: row?.export_sha256 ?? null };
}

/** The refusal of something that needs entries that were pruned, in words. */
export const prunedRefusal = ({ first, exportSha256 }: Pruned, what: string, next?: string): Refusal =>
  new Refusal('pruned', `${what}: the entries before ${first} were pruned. They are in the archived export with the SHA-256 ${exportSha256 ?? '?'}.`, {
    next: next ?? 'Ask whoever keeps the archive. The hashes are still here, so what the archive holds can be proven.',
  });

/** Throws `pruned` unless every entry from `from` on is here. */
export async function assertKept(db: Db, from: number): Promise<void> {
  const pruned = await readPruned(db);
  if (from < pruned.first)
    throw prunedRefusal(pruned, `The log cannot be exported from entry ${from} on`, `Begin at the first that is here: first=${pruned.first}.`);
}
