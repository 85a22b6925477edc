/** The writer's tree against vectors from Go's `sumdb/tlog` (and so Certificate Transparency's eight-leaf tree), and against the verifier's own code. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  append,
  type CompletedNode,
  emptyFrontier,
  emptyRoot,
  leafHash,
  proverFor,
  readFrontier,
  readRoot,
  rootOf,
  storedLevels,
  TreeDamaged,
  type TreeReader,
} from '../../src/audit/tree.ts';
import { consistencyHolds, extend, inclusionHolds, newRow, newTree, rootOf as verifierRootOf } from '../../src/audit/verify-tree.ts';

interface Vectors {
  reference: { leaves: string[]; leafHashes: string[]; roots: string[]; inclusion: Inclusion[]; consistency: Consistency[] };
  long: { roots: Record<string, string>; inclusion: Inclusion[]; consistency: Consistency[] };
}
type Inclusion = { index: number; size: number; proof: string[] };
type Consistency = { old: number; size: number; proof: string[] };
const vectors = JSON.parse(readFileSync(new URL('./vectors/merkle.json', import.meta.url), 'utf8')) as Vectors;

/** A tree kept as the database keeps it: leaves, and the nodes that `append` reports. */
function treeInMemory(lines: readonly (string | Buffer)[]) {
  const frontier = emptyFrontier();
  const leaves: Buffer[] = [];
  const nodes: CompletedNode[] = [];
  const roots: string[] = [];
  for (const line of lines) {
    const leaf = leafHash(line);
    leaves.push(leaf);
    nodes.push(...append(frontier, leaf));
    roots.push(rootOf(frontier).toString('hex'));
  }
  const asked = { rows: 0 };
  const reader: TreeReader = {
    leafHashes: async (from, to) => {
      asked.rows += to - from;
      return leaves.slice(from, to);
    },
    nodes: async (level, from, to) => {
      const found = nodes.filter((node) => node.level === level && node.index >= from && node.index < to).sort((a, b) => a.index - b.index);
      asked.rows += found.length;
      return found.map((node) => node.hash);
    },
  };
  return { reader, roots, leaves, nodes, asked };
}

const hexes = (hashes: readonly Buffer[]): string[] => hashes.map((hash) => hash.toString('hex'));
const referenceTree = treeInMemory(vectors.reference.leaves.map((leaf) => Buffer.from(leaf, 'hex')));
const entries = (count: number): string[] => Array.from({ length: count }, (_, i) => `entry ${i}`);
const longTree = treeInMemory(entries(1023));

describe('the eight-leaf tree of Certificate Transparency', () => {
  test('the empty root is SHA-256 of nothing', () => {
    expect(emptyRoot().toString('hex')).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    expect(rootOf(emptyFrontier())).toEqual(emptyRoot());
  });
  test('leaf hashes and the roots of 1 to 8 leaves', () => {
    expect(hexes(referenceTree.leaves)).toEqual(vectors.reference.leafHashes);
    expect(referenceTree.roots).toEqual(vectors.reference.roots);
    // The last one, as it is printed in every implementation's tests.
    expect(referenceTree.roots[7]).toBe('5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328');
  });
  test.each(vectors.reference.inclusion)('inclusion of $index in $size', async ({ index, size, proof }) => {
    expect(hexes(await proverFor(referenceTree.reader, size).inclusion(index))).toEqual(proof);
    expect(inclusionHolds(index, size, vectors.reference.leafHashes[index] ?? '', proof, vectors.reference.roots[size - 1] ?? '')).toBe(true);
  });
  test.each(vectors.reference.consistency)('consistency of $old with $size', async ({ old, size, proof }) => {
    expect(hexes(await proverFor(referenceTree.reader, size).consistency(old))).toEqual(proof);
    expect(consistencyHolds(old, size, vectors.reference.roots[old - 1] ?? '', vectors.reference.roots[size - 1] ?? '', proof)).toBe(true);
  });
});

describe('a tree of 1023 entries, with stored nodes of level 8', () => {
  test('roots', () => {
    for (const [size, root] of Object.entries(vectors.long.roots)) expect(longTree.roots[Number(size) - 1]).toBe(root);
    expect(longTree.nodes.map(({ level, index }) => [level, index])).toEqual([
      [8, 0],
      [8, 1],
      [8, 2],
    ]);
  });
  test('roots from what is stored', async () => {
    for (const [size, root] of Object.entries(vectors.long.roots)) expect((await readRoot(longTree.reader, Number(size))).toString('hex')).toBe(root);
  });
  test.each(vectors.long.inclusion)('inclusion of $index in $size', async ({ index, size, proof }) => {
    expect(hexes(await proverFor(longTree.reader, size).inclusion(index))).toEqual(proof);
  });
  test.each(vectors.long.consistency)('consistency of $old with $size', async ({ old, size, proof }) => {
    expect(hexes(await proverFor(longTree.reader, size).consistency(old))).toEqual(proof);
  });
});

test('a tree of 70,000 entries stores level 16, goes on from what is stored, and proves with at most 1,100 rows', async () => {
  const size = 70_000;
  const tree = treeInMemory(entries(size));
  expect(tree.nodes.filter((node) => node.level === 16)).toHaveLength(1);
  expect([...new Set(tree.nodes.map((node) => node.level))].every((level) => storedLevels.includes(level))).toBe(true);
  const frontier = await readFrontier(tree.reader, 65_600);
  for (const leaf of tree.leaves.slice(65_600)) append(frontier, leaf);
  expect(rootOf(frontier).toString('hex')).toBe(tree.roots[size - 1]);
  for (const index of [0, 12_345, 65_535, 65_536, size - 1]) {
    tree.asked.rows = 0;
    const proof = hexes(await proverFor(tree.reader, size).inclusion(index));
    expect(tree.asked.rows).toBeLessThanOrEqual(1_100);
    expect(inclusionHolds(index, size, (tree.leaves[index] as Buffer).toString('hex'), proof, tree.roots[size - 1] ?? '')).toBe(true);
  }
});

test('stored hashes that are missing are found, not guessed', async () => {
  const gone: TreeReader = { ...longTree.reader, nodes: async () => [] };
  await expect(readRoot(gone, 1000)).rejects.toBeInstanceOf(TreeDamaged);
});

test('proofs outside the tree are refused', async () => {
  const prover = proverFor(longTree.reader, 1000);
  await expect(prover.inclusion(1000)).rejects.toBeInstanceOf(RangeError);
  await expect(prover.inclusion(-1)).rejects.toBeInstanceOf(RangeError);
  await expect(prover.consistency(0)).rejects.toBeInstanceOf(RangeError);
  await expect(prover.consistency(1001)).rejects.toBeInstanceOf(RangeError);
});

const flip = (hash: string, bit: number): string => {
  const bytes = Buffer.from(hash, 'hex');
  const at = Math.floor(bit / 8) % 32;
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit % 8));
  return bytes.toString('hex');
};
const sizeAndIndex = fc
  .integer({ min: 1, max: 1023 })
  .chain((size) => fc.record({ size: fc.constant(size), index: fc.integer({ min: 0, max: size - 1 }), bit: fc.nat(255), which: fc.nat(20) }));

test('invariant 21: an inclusion proof of any entry of any size verifies, and with any field changed it does not', async () => {
  await fc.assert(
    fc.asyncProperty(sizeAndIndex, async ({ size, index, bit, which }) => {
      const proof = hexes(await proverFor(longTree.reader, size).inclusion(index));
      const leaf = (longTree.leaves[index] as Buffer).toString('hex');
      const root = longTree.roots[size - 1] as string;
      expect(inclusionHolds(index, size, leaf, proof, root)).toBe(true);
      expect(inclusionHolds(index, size, flip(leaf, bit), proof, root)).toBe(false);
      expect(inclusionHolds(index, size, leaf, proof, flip(root, bit))).toBe(false);
      expect(inclusionHolds(index, size, leaf, [...proof, flip(root, bit)], root)).toBe(false);
      expect(inclusionHolds(size, size, leaf, proof, root)).toBe(false);
      expect(inclusionHolds(-1, size, leaf, proof, root)).toBe(false);
      if (size > 1) expect(inclusionHolds((index + 1) % size, size, leaf, proof, root)).toBe(false);
      if (proof.length > 0) {
        const at = which % proof.length;
        expect(inclusionHolds(index, size, leaf, proof.with(at, flip(proof[at] as string, bit)), root)).toBe(false);
        expect(inclusionHolds(index, size, leaf, proof.toSpliced(at, 1), root)).toBe(false);
        expect(inclusionHolds(index, size, leaf, proof.with(at, 'zz'), root)).toBe(false);
      }
    }),
    { numRuns: 200 },
  );
});

test('invariant 21: a consistency proof between any two sizes verifies, and with any field changed it does not', async () => {
  await fc.assert(
    fc.asyncProperty(sizeAndIndex, async ({ size, index, bit, which }) => {
      const old = index + 1;
      const proof = hexes(await proverFor(longTree.reader, size).consistency(old));
      const [oldRoot, root] = [longTree.roots[old - 1] as string, longTree.roots[size - 1] as string];
      expect(consistencyHolds(old, size, oldRoot, root, proof)).toBe(true);
      expect(consistencyHolds(old, size, flip(oldRoot, bit), root, proof)).toBe(false);
      expect(consistencyHolds(old, size, oldRoot, flip(root, bit), proof)).toBe(false);
      expect(consistencyHolds(old, size, oldRoot, root, [...proof, root])).toBe(false);
      expect(consistencyHolds(0, size, oldRoot, root, proof)).toBe(false);
      expect(consistencyHolds(size + 1, size, oldRoot, root, proof)).toBe(false);
      if (proof.length > 0) {
        const at = which % proof.length;
        expect(consistencyHolds(old, size, oldRoot, root, proof.with(at, flip(proof[at] as string, bit)))).toBe(false);
        expect(consistencyHolds(old, size, oldRoot, root, proof.toSpliced(at, 1))).toBe(false);
      }
    }),
    { numRuns: 200 },
  );
});

test('the verifier builds the same roots from rows cut anywhere', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 11 }), (cuts) => {
      const tree = newTree();
      for (const cut of cuts) {
        const row = newRow(cut);
        Buffer.concat(longTree.leaves.slice(tree.size, tree.size + cut)).copy(row.bytes, 1);
        extend(tree, row, cut, newRow(cut));
        expect(verifierRootOf(tree)).toBe(longTree.roots[tree.size - 1]);
      }
    }),
  );
  expect(verifierRootOf(newTree())).toBe(emptyRoot().toString('hex'));
});
