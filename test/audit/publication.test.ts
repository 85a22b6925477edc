/** Two publishers may overlap when one was stopped for longer than its lock lasts. Whatever they do in which order, the directory ends as one of them alone would have left it. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { appendLines, PublicationRace, readPublishedNotes, writeLatest } from '../../src/audit/publication.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'halligan-publication-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const line = (n: number): { line: string } => ({ line: `${JSON.stringify({ note: `o\n${n}\nroot`, leaves: ['x'.repeat(n * 7)] })}\n` });
async function* lines(...numbers: number[]): AsyncGenerator<{ line: string }> {
  for (const n of numbers) yield line(n);
}
const text = (): Promise<string> => readFile(join(directory, 'checkpoints.jsonl'), 'utf8');
const whole = (...numbers: number[]): string => numbers.map((n) => line(n).line).join('');

describe('checkpoints.jsonl', () => {
  test('one who goes on in the middle after others have written more changes no byte', async () => {
    await appendLines(directory, 0, lines(1, 2));
    async function* withASleep(): AsyncGenerator<{ line: string }> {
      yield line(3);
      await appendLines(directory, whole(1, 2, 3).length, lines(4, 5, 6));
      yield line(4);
      yield line(5);
    }
    expect(await appendLines(directory, whole(1, 2).length, withASleep())).toBe(3);
    expect(await text()).toBe(whole(1, 2, 3, 4, 5, 6));
  });
  test('many at once', async () => {
    await appendLines(directory, 0, lines(1));
    await Promise.all(
      Array.from({ length: 12 }, (_, n) => appendLines(directory, whole(1).length, lines(...Array.from({ length: n + 1 }, (__, at) => at + 2)))),
    );
    expect(await text()).toBe(whole(...Array.from({ length: 13 }, (_, at) => at + 1)));
  });
  test.each(['', 'torn', '\0'.repeat(4_000), 'x'.repeat(4_000)])('a torn line of any kind is written over: %#', async (torn) => {
    await appendLines(directory, 0, lines(1));
    await writeFile(join(directory, 'checkpoints.jsonl'), whole(1) + torn);
    await appendLines(directory, whole(1).length, lines(2));
    expect((await text()).startsWith(whole(1, 2))).toBe(true);
    expect((await readPublishedNotes(directory)).appended).toBe('o\n2\nroot');
  });
  test('another whole line in that place is never written over', async () => {
    await appendLines(directory, 0, lines(1));
    async function* late(): AsyncGenerator<{ line: string }> {
      await writeFile(join(directory, 'checkpoints.jsonl'), `${whole(1)}{"another":1}\n`);
      yield line(2);
    }
    await expect(appendLines(directory, whole(1).length, late())).rejects.toBeInstanceOf(PublicationRace);
    expect(await text()).toBe(`${whole(1)}{"another":1}\n`);
  });
});

describe('latest', () => {
  const latest = (): Promise<string> => readFile(join(directory, 'latest'), 'utf8');
  test('does not go back', async () => {
    await writeLatest(directory, 'o\n9\nroot');
    await writeLatest(directory, 'o\n5\nroot');
    expect(await latest()).toBe('o\n9\nroot');
    await writeLatest(directory, 'o\n12\nroot');
    expect(await latest()).toBe('o\n12\nroot');
  });
  test('takes away the drafts of smaller trees, so that one who slept before its rename has nothing to rename', async () => {
    await writeFile(join(directory, '.latest-4.new'), 'o\n4\nroot');
    await writeFile(join(directory, '.latest-99.new'), 'o\n99\nroot');
    await writeLatest(directory, 'o\n9\nroot');
    expect((await readdir(directory)).sort()).toEqual(['.latest-99.new', 'latest']);
  });
  test('twenty at once, in any order: the largest stays, and no draft', async () => {
    for (let round = 0; round < 10; round++) {
      const sizes = Array.from({ length: 20 }, (_, n) => ((n * 7 + round * 3) % 20) + 1 + round * 20);
      await Promise.all(sizes.map((size) => writeLatest(directory, `o\n${size}\nroot`)));
      expect(await latest()).toBe(`o\n${round * 20 + 20}\nroot`);
      expect(await readdir(directory)).toEqual(['latest']);
    }
  });
});
