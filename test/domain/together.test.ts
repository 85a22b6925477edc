/** Work that is shared by whoever asks for it while it is under way. */
import { expect, test } from 'vitest';
import { eachOf, together } from '../../src/domain/together.ts';

/** Doubles numbers; each piece of work waits until it is let go. */
function doubling(sharing: { most: number; atOnce: number }) {
  const pieces: { items: readonly number[]; go: () => void }[] = [];
  const ask = together(sharing, (items: readonly number[]) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    pieces.push({ items, go: resolve });
    return items.map((item) => promise.then(() => item * 2));
  });
  return { pieces, ask };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('one alone is done at once; what comes meanwhile is done in one piece, and each gets its own answer', async () => {
  const { pieces, ask } = doubling({ most: 10, atOnce: 1 });
  const answers = [1, 2, 3, 4].map(ask);
  expect(pieces.map(({ items }) => items)).toEqual([[1]]);
  pieces[0]?.go();
  await turn();
  expect(pieces.map(({ items }) => items)).toEqual([[1], [2, 3, 4]]);
  pieces[1]?.go();
  expect(await Promise.all(answers)).toEqual([2, 4, 6, 8]);
});

test('a piece has no more than so many, and no more than so many run at once', async () => {
  const { pieces, ask } = doubling({ most: 2, atOnce: 2 });
  const answers = [1, 2, 3, 4, 5, 6, 7].map(ask);
  for (let at = 0; at < 5; at++) {
    expect(pieces.length).toBeLessThanOrEqual(at + 2);
    pieces[at]?.go();
    await turn();
  }
  expect(pieces.map(({ items }) => items)).toEqual([[1], [2], [3, 4], [5, 6], [7]]);
  expect(await Promise.all(answers)).toEqual([2, 4, 6, 8, 10, 12, 14]);
});

test('one that fails fails alone: the others of its piece are done again without it, and the next piece begins', async () => {
  const worked: number[][] = [];
  const ask = together({ most: 10, atOnce: 1 }, (items: readonly number[]) =>
    eachOf(items, async (some) => {
      worked.push([...some]);
      await turn();
      if (some.includes(3)) throw new Error('three');
      return some.map((item) => item * 2);
    }),
  );
  const answers = await Promise.allSettled([1, 2, 3, 4].map(ask));
  expect(answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : (answer.reason as Error).message))).toEqual([2, 4, 'three', 8]);
  expect(worked).toEqual([[1], [2, 3, 4], [2], [3], [4]]);
  expect(await ask(5)).toBe(10);
});

test('one that fails alone is not tried again', async () => {
  let calls = 0;
  const ask = together({ most: 10, atOnce: 1 }, (items: readonly number[]) =>
    eachOf(items, async () => {
      calls++;
      throw new Error('no');
    }),
  );
  await expect(ask(1)).rejects.toThrow('no');
  expect(calls).toBe(1);
});
