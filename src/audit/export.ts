/**
 * What leaves the house: the log as JSONL (line n is leaf n's exact bytes), its checkpoints, proofs, and a grant's
 * evidence bundle. Only what a signed checkpoint covers is ever exported as the log. Memory stays flat: everything is
 * read in pages.
 */
import { type Expression, type SqlBool, sql } from 'kysely';
import type { Db } from '../db/pool.ts';
import { Refusal } from '../domain/errors.ts';
import { lostLine, lostPrefix } from './continue.ts';
import { assertKept, prunedRefusal, readPruned } from './pruned.ts';
import { checkpointLines, newestCheckpoint, type StoredCheckpoint, storedTree } from './stored-tree.ts';
import { leafHash, proverFor } from './tree.ts';

const pageRows = 5_000;

/** What to keep. Every member narrows; a filtered listing is no longer the whole log and cannot be verified as one. */
export interface AuditFilter {
  /** A person id, as the actor or as the one concerned. */
  readonly person?: string | undefined;
  readonly request?: string | undefined;
  readonly grant?: string | undefined;
  readonly lease?: string | undefined;
  readonly incident?: string | undefined;
  readonly entitlement?: string | undefined;
  readonly type?: string | undefined;
  /** Not before, and before. */
  readonly since?: Date | undefined;
  readonly until?: Date | undefined;
}

export interface ExportRange {
  /** First index, 0 when left out. */
  readonly from?: number | undefined;
  /** One past the last index; everything sealed when left out. */
  readonly to?: number | undefined;
  readonly filter?: AuditFilter | undefined;
}

export interface SealedLine {
  readonly index: number;
  readonly line: string;
}

/** Sealed entries in order of index, in pages of at most 5,000. The end is fixed when it starts. Throws `pruned` when its beginning is not here any more. */
export async function* sealedPages(db: Db, range: ExportRange = {}): AsyncGenerator<SealedLine[]> {
  await assertKept(db, range.from ?? 0);
  const sealed = (await newestCheckpoint(db))?.size ?? 0;
  const end = Math.min(range.to ?? sealed, sealed);
  let next = range.from ?? 0;
  for (;;) {
    let query = db
      .selectFrom('audit_leaf as l')
      .leftJoin('audit_event as e', 'e.id', 'l.event_id')
      .select(['l.index', 'l.hash', 'e.line'])
      .where('l.index', '>=', next)
      .where('l.index', '<', end)
      .where(sql<SqlBool>`(e.line IS NOT NULL OR starts_with(l.event_id, ${lostPrefix}))`);
    for (const condition of conditions(range.filter ?? {})) query = query.where(condition);
    const rows = (await query.orderBy('l.index').limit(pageRows).execute()).map(({ index, hash, line }) => ({ index, line: line ?? lostLine(hash) }));
    if (rows.length > 0) yield rows;
    if (rows.length < pageRows) return;
    next = (rows.at(-1) as SealedLine).index + 1;
  }
}

function conditions(filter: AuditFilter): Expression<SqlBool>[] {
  const { person, request, grant, lease, incident, entitlement, type, since, until } = filter;
  const all: (Expression<SqlBool> | false)[] = [
    person !== undefined && sql<SqlBool>`(e.person_id = ${person} OR e.actor_id = ${person})`,
    request !== undefined && sql<SqlBool>`e.request_id = ${request}`,
    grant !== undefined && sql<SqlBool>`e.grant_id = ${grant}`,
    lease !== undefined && sql<SqlBool>`e.lease_id = ${lease}`,
    incident !== undefined && sql<SqlBool>`e.incident = ${incident}`,
    entitlement !== undefined && sql<SqlBool>`${entitlement} = ANY (e.entitlements)`,
    type !== undefined && sql<SqlBool>`e.type = ${type}`,
    since !== undefined && sql<SqlBool>`e.at >= ${since}`,
    until !== undefined && sql<SqlBool>`e.at < ${until}`,
  ];
  return all.filter((condition) => condition !== false);
}

/** The log as chunks of JSONL. Without a filter, line n (counted from `from`) is the exact leaf n. */
export async function* exportLog(db: Db, range: ExportRange = {}): AsyncGenerator<string> {
  for await (const rows of sealedPages(db, range)) yield `${rows.map((row) => row.line).join('\n')}\n`;
}

/** The checkpoints as chunks of JSONL: the same lines as the published `checkpoints.jsonl` (docs/audit.md). */
export async function* exportCheckpoints(db: Db): AsyncGenerator<string> {
  for await (const { line } of checkpointLines(db, 0)) yield line;
}

/** One entry with the proof that a signed checkpoint contains it. Hashes are hex, lowest first (RFC 6962 §2.1.1). */
export interface InclusionProof {
  readonly index: number;
  readonly line: string;
  readonly leafHash: string;
  readonly proof: readonly string[];
}

export interface ProofAnswer extends InclusionProof {
  /** The newest signed checkpoint: a C2SP signed note. */
  readonly checkpoint: string;
}

async function sealedHead(db: Db): Promise<StoredCheckpoint> {
  const head = await newestCheckpoint(db);
  if (!head) throw new Refusal('not_found', 'No checkpoint is signed yet, so nothing can be proven.', { next: 'Try again in a few seconds.' });
  return head;
}

/** Proof that entry `index` is in the newest checkpoint. Throws `not_found` for an index that is not sealed, `pruned` for one that was deleted. */
export async function proofFor(db: Db, index: number): Promise<ProofAnswer> {
  const head = await sealedHead(db);
  const row = await db
    .selectFrom('audit_leaf as l')
    .leftJoin('audit_event as e', 'e.id', 'l.event_id')
    .select(['l.index', 'l.event_id', 'e.line'])
    .where('l.index', '=', index)
    .executeTakeFirst();
  const pruned = await readPruned(db);
  if (index >= 0 && index < pruned.first) throw prunedRefusal(pruned, `There is no text of entry ${index} to prove`);
  if (row?.event_id.startsWith(lostPrefix))
    throw new Refusal('not_found', `The text of entry ${index} was lost with a database that was restored; only its hash is known (log.continued).`);
  const line = row?.line ?? null;
  if (line === null || index >= head.size) throw new Refusal('not_found', `The log has no sealed entry ${index}; it has ${head.size}.`);
  const proof = await proverFor(storedTree(db), head.size).inclusion(index);
  return { ...provenEntry({ index, line }, proof), checkpoint: head.note };
}

const provenEntry = (row: SealedLine, proof: readonly Buffer[]): InclusionProof => ({
  index: row.index,
  line: row.line,
  leafHash: leafHash(row.line).toString('hex'),
  proof: proof.map((hash) => hash.toString('hex')),
});

/** Everything that is witnessed about one grant and its request, with what an auditor needs to check it without us. */
export interface EvidenceBundle {
  readonly v: 1;
  readonly grant: string;
  readonly checkpoint: string;
  readonly entries: readonly InclusionProof[];
  /** Events that have no index yet, and so no proof: ask again after the next checkpoint. */
  readonly unsealed: number;
}

/** The evidence bundle of a grant. Throws `not_found` for an unknown grant, or while nothing is sealed; `pruned` when some of it was deleted. */
export async function evidenceFor(db: Db, grantId: string): Promise<EvidenceBundle> {
  // A grant that is long over may be deleted (`retention.requests`); the log still names its request.
  const grant =
    (await db.selectFrom('access_grant').select(['id', 'request_id']).where('id', '=', grantId).executeTakeFirst()) ??
    (await db
      .selectFrom('audit_event')
      .select(['grant_id as id', 'request_id'])
      .where('grant_id', '=', grantId)
      .where('request_id', 'is not', null)
      .limit(1)
      .executeTakeFirst());
  if (!grant) throw new Refusal('not_found');
  const head = await sealedHead(db);
  const rows = await db
    .selectFrom('audit_event as e')
    .leftJoin('audit_leaf as l', 'l.event_id', 'e.id')
    .select(['l.index', 'e.line', 'e.type'])
    .where((where) => where.or([where('e.request_id', '=', grant.request_id), where('e.grant_id', '=', grant.id)]))
    .orderBy('e.position')
    .execute();
  const pruned = await readPruned(db);
  // Each request begins with this event: without it a part of the story is gone, and a bundle would look whole.
  if (pruned.first > 0 && !rows.some((row) => row.type === 'request.submitted')) throw prunedRefusal(pruned, `There is no whole evidence of ${grantId} here`);
  const sealed = rows.filter((row): row is typeof row & SealedLine => row.index !== null && row.index < head.size).sort((a, b) => a.index - b.index);
  const prover = proverFor(storedTree(db), head.size);
  const entries: InclusionProof[] = [];
  for (const row of sealed) entries.push(provenEntry(row, await prover.inclusion(row.index)));
  return { v: 1, grant: grantId, checkpoint: head.note, entries, unsealed: rows.length - sealed.length };
}
