/**
 * The Merkle tree of the audit log as the writer builds and proves it (RFC 6962 §2.1). Only the levels 0, 8, 16 and 24
 * are stored; everything between is computed from at most 256 stored hashes at a time. The verifier has its own code
 * (`verify*.ts`) and must never import this.
 */
import { hash } from 'node:crypto';

/** Levels of whole subtrees that are kept beside the leaves: a node of level 8 stands for 256 leaves. */
export const storedLevels: readonly number[] = [8, 16, 24];
const band = 8;
const bandWidth = 256;

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer');

/** SHA-256(0x00 ‖ line): the hash of one entry (RFC 6962 §2.1). */
export const leafHash = (line: string | Uint8Array): Buffer =>
  sha256(Buffer.concat([Buffer.of(0), typeof line === 'string' ? Buffer.from(line, 'utf8') : line]));

/** SHA-256(0x01 ‖ left ‖ right): the hash of an inner node (RFC 6962 §2.1). */
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Buffer.concat([Buffer.of(1), left, right], 65));

/** The root of a tree without entries: SHA-256 of nothing. */
export const emptyRoot = (): Buffer => sha256(new Uint8Array());

/** Where stored hashes come from. Both answer in order of index, from `from` up to and without `to`. */
export interface TreeReader {
  leafHashes(from: number, to: number): Promise<Buffer[]>;
  /** Whole subtrees of 2^level leaves, `level` being 8, 16 or 24. */
  nodes(level: number, from: number, to: number): Promise<Buffer[]>;
}

/** Stored hashes that ought to be there are not: somebody took them away, or the size asked for is beyond the tree. */
export class TreeDamaged extends Error {
  override readonly name = 'TreeDamaged';
}

// ---- appending

/** What must be kept to go on appending: the hashes of the whole subtrees that make up the tree, widest first, with their levels. */
export interface Frontier {
  size: number;
  readonly subtrees: { level: number; hash: Buffer }[];
}

export interface CompletedNode {
  readonly level: number;
  readonly index: number;
  readonly hash: Buffer;
}

/** The frontier of a tree without entries. */
export const emptyFrontier = (): Frontier => ({ size: 0, subtrees: [] });

/** Adds one entry's hash to `frontier`, in place, and answers with the subtrees of stored levels that it completed. */
export function append(frontier: Frontier, leaf: Buffer): CompletedNode[] {
  const completed: CompletedNode[] = [];
  let joined = { level: 0, hash: leaf };
  for (let last = frontier.subtrees.at(-1); last?.level === joined.level; last = frontier.subtrees.at(-1)) {
    frontier.subtrees.pop();
    joined = { level: joined.level + 1, hash: nodeHash(last.hash, joined.hash) };
    if (storedLevels.includes(joined.level)) {
      completed.push({ level: joined.level, index: Math.floor(frontier.size / 2 ** joined.level), hash: joined.hash });
    }
  }
  frontier.subtrees.push(joined);
  frontier.size += 1;
  return completed;
}

/** The root of everything appended so far. */
export function rootOf(frontier: Frontier): Buffer {
  let root: Buffer | undefined;
  for (const { hash: left } of frontier.subtrees.toReversed()) root = root === undefined ? left : nodeHash(left, root);
  return root ?? emptyRoot();
}

// ---- reading and proving

type Subtree = (level: number, index: number) => Promise<Buffer>;

const fold = (hashes: readonly Buffer[]): Buffer => {
  let row = hashes;
  while (row.length > 1) {
    const next: Buffer[] = [];
    for (let i = 0; i + 1 < row.length; i += 2) next.push(nodeHash(row[i] as Buffer, row[i + 1] as Buffer));
    row = next;
  }
  return row[0] as Buffer;
};

/** Hashes of whole subtrees within the first `size` entries. Stored hashes are read in blocks of 256 and each block once. */
function subtreesOf(reader: TreeReader, size: number): Subtree {
  const blocks = new Map<string, Promise<Buffer[]>>();
  const block = (level: number, number: number): Promise<Buffer[]> => {
    const key = `${level}/${number}`;
    const from = number * bandWidth;
    const to = Math.min(from + bandWidth, Math.floor(size / 2 ** level));
    const known = blocks.get(key) ?? (level === 0 ? reader.leafHashes(from, to) : reader.nodes(level, from, to));
    blocks.set(key, known);
    return known;
  };
  return async (level, index) => {
    const stored = Math.min(level - (level % band), storedLevels.at(-1) as number);
    const width = 2 ** (level - stored);
    const from = index * width;
    const found: Buffer[] = [];
    for (let at = from; at < from + width; ) {
      const number = Math.floor(at / bandWidth);
      const end = Math.min(from + width, (number + 1) * bandWidth);
      found.push(...(await block(stored, number)).slice(at - number * bandWidth, end - number * bandWidth));
      at = end;
    }
    if (found.length !== width) throw new TreeDamaged(`Stored hashes of level ${stored} are missing between ${from} and ${from + width}.`);
    return fold(found);
  };
}

/** The largest power of two below `n` (RFC 6962 §2.1: k < n ≤ 2k), `n` being 2 or more. */
function splitPoint(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

const isPowerOfTwo = (n: number): boolean => Number.isInteger(Math.log2(n)) && 2 ** Math.log2(n) === n;

/** The hash of the entries from `from` up to and without `to`, `from` being aligned as RFC 6962's recursion aligns it. */
async function rangeHash(subtree: Subtree, from: number, to: number): Promise<Buffer> {
  const n = to - from;
  if (isPowerOfTwo(n)) return await subtree(Math.log2(n), from / n);
  const k = splitPoint(n);
  return nodeHash(await rangeHash(subtree, from, from + k), await rangeHash(subtree, from + k, to));
}

/** The frontier of the first `size` entries, from what is stored. Throws `TreeDamaged` where hashes are missing. */
export async function readFrontier(reader: TreeReader, size: number): Promise<Frontier> {
  const subtree = subtreesOf(reader, size);
  const frontier: Frontier = { size, subtrees: [] };
  for (let from = 0; from < size; ) {
    const level = Math.floor(Math.log2(size - from));
    frontier.subtrees.push({ level, hash: await subtree(level, from / 2 ** level) });
    from += 2 ** level;
  }
  return frontier;
}

/** The root of the first `size` entries, from what is stored. */
export const readRoot = async (reader: TreeReader, size: number): Promise<Buffer> => rootOf(await readFrontier(reader, size));

export type Prover = {
  /** The audit path of entry `index` in the tree of `size` entries, lowest hash first (RFC 6962 §2.1.1). */
  readonly inclusion: (index: number) => Promise<Buffer[]>;
  /** The proof that the tree of `old` entries is the beginning of the tree of `size` entries (RFC 6962 §2.1.2). */
  readonly consistency: (old: number) => Promise<Buffer[]>;
};

/** Proofs against the first `size` entries; blocks read for one proof are used again by the next. Throws `RangeError` for an index outside. */
export function proverFor(reader: TreeReader, size: number): Prover {
  const subtree = subtreesOf(reader, size);
  const path = async (index: number, from: number, to: number): Promise<Buffer[]> => {
    if (to - from === 1) return [];
    const middle = from + splitPoint(to - from);
    return index < middle
      ? [...(await path(index, from, middle)), await rangeHash(subtree, middle, to)]
      : [...(await path(index, middle, to)), await rangeHash(subtree, from, middle)];
  };
  const subproof = async (old: number, from: number, to: number, whole: boolean): Promise<Buffer[]> => {
    if (old === to) return whole ? [] : [await rangeHash(subtree, from, to)];
    const middle = from + splitPoint(to - from);
    return old <= middle
      ? [...(await subproof(old, from, middle, whole)), await rangeHash(subtree, middle, to)]
      : [...(await subproof(old, middle, to, false)), await rangeHash(subtree, from, middle)];
  };
  const inside = (n: number, low: number, high: number): void => {
    if (!Number.isSafeInteger(n) || n < low || n > high) throw new RangeError(`${n} is not between ${low} and ${high}.`);
  };
  return {
    inclusion: async (index) => {
      inside(index, 0, size - 1);
      return await path(index, 0, size);
    },
    consistency: async (old) => {
      inside(old, 1, size);
      return await subproof(old, 0, size, true);
    },
  };
}
