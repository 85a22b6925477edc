/** The verifier for a grant's evidence bundle: each event by its own audit path, without the rest of the log. */
import { BadForm, type Head, openNote, readKey } from './verify-note.ts';
import { hashOfLine, inclusionHolds } from './verify-tree.ts';
import { nameOf } from './verify-words.ts';

export type EvidenceResult =
  | { readonly ok: true; readonly grant: string; readonly entries: number; readonly size: number; readonly unsealed: number }
  | {
      readonly ok: false;
      readonly problem: 'key' | 'malformed' | 'checkpoint-signature' | 'inclusion' | 'order' | 'foreign-entry';
      readonly message: string;
      /** The entry's index in the log, where one is to blame. */
      readonly index?: number;
    };

type Failure = Extract<EvidenceResult, { ok: false }>;
type Entry = { index: number; line: string; leafHash: string; proof: string[] };

const fail = (problem: Failure['problem'], message: string, index?: number): Failure => ({
  ok: false,
  problem,
  message,
  ...(index === undefined ? {} : { index }),
});

/**
 * Checks that every entry of the bundle is in the log under its signed checkpoint, at the index it states, and is about
 * the bundle's grant or that grant's request. It cannot show that no event was left out: only the whole log can.
 */
export function verifyEvidence(bundle: unknown, key: string): EvidenceResult {
  const read = readBundle(bundle);
  if (!read) return fail('malformed', 'This is not an evidence bundle.');
  let head: Head;
  try {
    const opened = openNote(read.checkpoint, readKey(key));
    if ('fault' in opened) return fail(opened.fault === 'signature' ? 'checkpoint-signature' : 'malformed', `The checkpoint is not good: ${opened.message}.`);
    head = opened.head;
  } catch (error) {
    if (error instanceof BadForm) return fail('key', error.message);
    throw error;
  }
  let before = -1;
  const request = requestOf(read.grant, read.entries);
  for (const entry of read.entries) {
    if (entry.index <= before) return fail('order', `Entry ${entry.index} stands after entry ${before}.`, entry.index);
    before = entry.index;
    const leaf = hashOfLine(Buffer.from(entry.line, 'utf8'));
    if (leaf !== entry.leafHash) return fail('inclusion', `Entry ${entry.index} does not have the hash that is written beside it.`, entry.index);
    if (!inclusionHolds(entry.index, head.size, leaf, entry.proof, head.root)) {
      return fail(
        'inclusion',
        `Entry ${entry.index} (${nameOf(Buffer.from(entry.line)).type ?? 'no event'}) is not proven to be in the signed log at that place.`,
        entry.index,
      );
    }
    const about = subjectOf(entry.line);
    const ours = about.grant === undefined ? about.request !== undefined && about.request === request : about.grant === read.grant;
    if (!ours) return fail('foreign-entry', `Entry ${entry.index} is in the log, but is not about ${read.grant}.`, entry.index);
  }
  return { ok: true, grant: read.grant, entries: read.entries.length, size: head.size, unsealed: read.unsealed };
}

function readBundle(value: unknown): { grant: string; checkpoint: string; entries: Entry[]; unsealed: number } | null {
  if (typeof value !== 'object' || value === null) return null;
  const { v, grant, checkpoint, entries, unsealed } = value as { [key: string]: unknown };
  if (v !== 1 || typeof grant !== 'string' || typeof checkpoint !== 'string' || !Array.isArray(entries) || !Number.isSafeInteger(unsealed)) return null;
  if (entries.length === 0 || !entries.every(isEntry)) return null;
  return { grant, checkpoint, entries, unsealed: unsealed as number };
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== 'object' || value === null) return false;
  const { index, line, leafHash, proof } = value as { [key: string]: unknown };
  return (
    Number.isSafeInteger(index) &&
    typeof line === 'string' &&
    typeof leafHash === 'string' &&
    Array.isArray(proof) &&
    proof.every((step) => typeof step === 'string')
  );
}

function subjectOf(line: string): { grant: unknown; request: unknown } {
  try {
    const { grant, request } = JSON.parse(line) as { grant?: unknown; request?: unknown };
    return { grant, request };
  } catch {
    return { grant: undefined, request: undefined };
  }
}

/** The request that the grant's own events name. */
function requestOf(grant: string, entries: readonly Entry[]): unknown {
  return entries.map((entry) => subjectOf(entry.line)).find((about) => about.grant === grant && about.request !== undefined)?.request;
}
