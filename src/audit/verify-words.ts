/** What the verifier answers, and how it says what is wrong with an entry. */
import { isUtf8 } from 'node:buffer';
import type { LostRange } from './verify-losses.ts';
import { hashOfLine } from './verify-tree.ts';

export type VerifyProblem =
  /** The verifier key is not one, or a file cannot be read. */
  | 'key'
  | 'unreadable'
  /** A checkpoint, or an entry that no checkpoint covers, is not of the form it must have. */
  | 'malformed'
  | 'checkpoint-signature'
  /** Checkpoints stand in the wrong order, or one between them is missing. */
  | 'checkpoint-order'
  | 'missing-checkpoint'
  /** The signed root is not the root of the entries, although the published hashes agree with the entries. */
  | 'consistency'
  /** An entry (or one within `range`) is not the one that was sealed. */
  | 'entry'
  /** The entries are the sealed ones, but the published hashes of them were changed. */
  | 'leaf-list'
  /** The text of an entry is missing, and no later entry says that it was lost. */
  | 'lost'
  /** The export ends before the newest checkpoint, or goes on after it. */
  | 'truncated'
  | 'unsealed';

/** An entry as far as it can be read; members that cannot are null. */
export interface EntryName {
  readonly id: string | null;
  readonly type: string | null;
  readonly at: string | null;
}

export interface VerifyFailure {
  readonly ok: false;
  readonly problem: VerifyProblem;
  /** One sentence or two, for people. */
  readonly message: string;
  /** How many entries from the beginning are certainly as they were sealed. */
  readonly intactBefore: number;
  /** The first bad entry, counted from 0. */
  readonly index?: number;
  /** Where one bad entry cannot be named: first and last index of those among which it is. */
  readonly range?: readonly [number, number];
  readonly entry?: EntryName;
  /** Hashes (hex) of the sealed entry and of the one found. */
  readonly expected?: string;
  readonly found?: string;
  /** The size that the failing checkpoint states. */
  readonly checkpoint?: number;
}

export interface VerifySuccess {
  readonly ok: true;
  readonly entries: number;
  readonly first: EntryName;
  readonly last: EntryName;
  readonly checkpoints: number;
  /** Milliseconds from the last entry to the signing of the checkpoint over it, by the log's own word; null when unknown. */
  readonly headSealedWithinMs: number | null;
  /** Entries after the newest checkpoint, of which nothing is proven. Only with `allowUnsealed`. */
  readonly unsealed: number;
  /** Entries that are known by their hash alone: their text was lost with a database that was restored, as the log itself says. First and last index of each stretch. */
  readonly lost: readonly LostRange[];
}

export type VerifyResult = VerifySuccess | VerifyFailure;

/** Reads what names an entry; never fails. */
export function nameOf(line: Uint8Array): EntryName {
  const text = (member: unknown): string | null => (typeof member === 'string' ? member.slice(0, 200) : null);
  try {
    const value = JSON.parse(Buffer.from(line).toString('utf8')) as { id?: unknown; type?: unknown; at?: unknown } | null;
    return { id: text(value?.id), type: text(value?.type), at: text(value?.at) };
  } catch {
    return { id: null, type: null, at: null };
  }
}

/** The first entry whose hash is not the published one. */
export interface Difference {
  readonly index: number;
  readonly line: Buffer;
  readonly found: string;
  /** Hash of the entry after it, where it was at hand. */
  readonly foundNext: string | null;
}

/** Why a line cannot be a leaf at all, or null. */
export function formFault(line: Buffer): string | null {
  if (line.at(-1) === 13) return 'Its line ends in CR LF, so the file was converted; leaves end in LF alone.';
  if (!isUtf8(line)) return 'It is not valid UTF-8.';
  if (line.length === 0) return 'It is an empty line.';
  return null;
}

/**
 * What happened to the entry, told from the hashes around it. `sealed` are the authenticated hashes of the entries from
 * `from` on.
 */
export function whatHappened(difference: Difference, sealed: Buffer, from: number): string {
  const { index, line, found, foundNext } = difference;
  const sealedAt = (i: number): string => sealed.toString('hex', (i - from) * 32, (i - from + 1) * 32);
  const place = (hash: string): number => {
    const bytes = Buffer.from(hash, 'hex');
    for (let at = sealed.indexOf(bytes); at >= 0; at = sealed.indexOf(bytes, at + 1)) if (at % 32 === 0) return from + at / 32;
    return -1;
  };
  const stands = place(found);
  if (stands === index + 1 && foundNext === sealedAt(index)) return `Entries ${index} and ${index + 1} have changed places.`;
  if (stands === index + 1) return `The sealed entry ${index} was taken out: the one after it stands in its place.`;
  if (stands > index) return `In its place stands entry ${stands}: entries were taken out or moved.`;
  if (stands >= 0) return `In its place stands entry ${stands} once more.`;
  if (foundNext === sealedAt(index)) return 'It was put in: the sealed entry comes after it.';
  const withoutReturn = line.at(-1) === 13 && hashOfLine(line.subarray(0, -1)) === sealedAt(index);
  return withoutReturn
    ? 'Only its line ending differs (CR LF for LF): the file was converted.'
    : (formFault(line) ?? 'Its bytes are not those that were sealed.');
}
