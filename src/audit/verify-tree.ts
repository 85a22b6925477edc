/**
 * The verifier's own Merkle tree (RFC 6962 §2.1, RFC 9162 §2.1.3 and §2.1.4). Written for speed, because an auditor
 * hashes millions of entries: whole rows of hashes are joined at once, and Node's one-shot `hash` answers in binary
 * strings, which is its cheapest form (three times cheaper than a Buffer).
 */
import { hash } from 'node:crypto';

const width = 32;

/** Entries' hashes in one stretch: 32 bytes each, after one spare byte. */
export interface Row {
  readonly bytes: Buffer;
}
/** Room for `count` hashes. */
export const newRow = (count: number): Row => ({ bytes: Buffer.alloc(1 + count * width) });
/** The bytes of hash `i`. */
export const hashAt = (row: Row, i: number): Buffer => row.bytes.subarray(1 + i * width, 1 + (i + 1) * width);

const join = (left: Uint8Array, right: Uint8Array): Buffer => Buffer.from(hash('sha256', Buffer.concat([Buffer.of(1), left, right]), 'hex'), 'hex');

/** SHA-256(0x00 ‖ line) as hex. */
export const hashOfLine = (line: Uint8Array): string => hash('sha256', Buffer.concat([Buffer.of(0), line]), 'hex');

/** The tree of the entries so far: at level n the hash of a whole subtree that waits for its right neighbour. */
export interface Tree {
  size: number;
  readonly waiting: Buffer[];
}
/** A tree without entries. */
export const newTree = (): Tree => ({ size: 0, waiting: [] });
/** The same tree, which can grow by itself. */
export const copyOf = (tree: Tree): Tree => ({ size: tree.size, waiting: [...tree.waiting] });

/** Adds the first `count` hashes of `row`, whose bytes are used up. `spare` must be as long. */
export function extend(tree: Tree, row: Row, count: number, spare: Row): void {
  let here = row.bytes;
  let next = spare.bytes;
  let left = count;
  for (let level = 0, index = tree.size; left > 0; level += 1, index = Math.floor(index / 2)) {
    let at = 0;
    let joined = 0;
    if (index % 2 === 1) {
      join(tree.waiting[level] as Buffer, here.subarray(1, 1 + width)).copy(next, 1);
      at = 1;
      joined = 1;
    }
    for (; at + 1 < left; at += 2, joined += 1) {
      // The byte before a pair belongs to what was already used: it becomes the 0x01 of the node.
      const from = at * width;
      here[from] = 1;
      next.write(hash('sha256', here.subarray(from, from + 1 + 2 * width), 'binary'), 1 + joined * width, width, 'latin1');
    }
    if (at < left) tree.waiting[level] = Buffer.from(here.subarray(1 + at * width, 1 + (at + 1) * width));
    left = joined;
    [here, next] = [next, here];
  }
  tree.size += count;
}

/** The root as hex. */
export function rootOf(tree: Tree): string {
  let root: Buffer | undefined;
  for (let level = 0, rest = tree.size; rest > 0; level += 1, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 0) continue;
    const subtree = tree.waiting[level] as Buffer;
    root = root === undefined ? subtree : join(subtree, root);
  }
  return root === undefined ? hash('sha256', '', 'hex') : root.toString('hex');
}

/** Whether `path` leads from an entry's hash at `index` to the root of `size` entries (RFC 9162 §2.1.3.2). Hashes are hex. */
export function inclusionHolds(index: number, size: number, leaf: string, path: readonly string[], root: string): boolean {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) return false;
  let [fn, sn] = [index, size - 1];
  let running: Buffer = Buffer.from(leaf, 'hex');
  for (const step of path) {
    if (sn === 0 || !isHash(step)) return false;
    const hashed = Buffer.from(step, 'hex');
    if (fn % 2 === 1 || fn === sn) {
      running = join(hashed, running);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, Math.floor(sn / 2)];
    } else running = join(running, hashed);
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  return sn === 0 && running.toString('hex') === root;
}

/** Whether `path` shows that the tree of `old` entries is the beginning of the tree of `size` entries (RFC 9162 §2.1.4.2). Hashes are hex. */
export function consistencyHolds(old: number, size: number, oldRoot: string, root: string, path: readonly string[]): boolean {
  if (!Number.isSafeInteger(old) || !Number.isSafeInteger(size) || old < 1 || old > size || !path.every(isHash)) return false;
  if (old === size) return path.length === 0 && oldRoot === root;
  const steps = Number.isInteger(Math.log2(old)) ? [oldRoot, ...path] : [...path];
  let [fn, sn] = [old - 1, size - 1];
  while (fn % 2 === 1) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  const start = steps.shift();
  if (start === undefined) return false;
  let [fr, sr]: [Buffer, Buffer] = [Buffer.from(start, 'hex'), Buffer.from(start, 'hex')];
  for (const step of steps) {
    if (sn === 0) return false;
    const hashed = Buffer.from(step, 'hex');
    if (fn % 2 === 1 || fn === sn) {
      fr = join(hashed, fr);
      sr = join(hashed, sr);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, Math.floor(sn / 2)];
    } else sr = join(sr, hashed);
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  return sn === 0 && fr.toString('hex') === oldRoot && sr.toString('hex') === root;
}

/** Whether this is a SHA-256 in hex, as the log writes it. */
export const isHash = (text: unknown): text is string => typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
