/** What many ask at once is read once, and never before they asked. */
import { expect, test } from 'vitest';
import { together } from '../../../src/providers/vault-database/together.ts';

const forever = new AbortController().signal;
const tick = () => new Promise((resolve) => setTimeout(resolve, 5));

/** Readings that are answered by hand; each gives its number. */
function byHand(apartMs = 0) {
  const open: { key: string; answer: () => void; fail: (error: Error) => void }[] = [];
  let count = 0;
  const read = together(
    (key: string) =>
      new Promise<number>((resolve, reject) => {
        const number = ++count;
        open.push({ key, answer: () => resolve(number), fail: reject });
      }),
    1_000,
    (key) => new Error(`late ${key}`),
    apartMs,
  );
  return { read, open };
}

test('those who ask while a reading runs share the next one, never that one', async () => {
  const { read, open } = byHand();
  const first = read('a', forever);
  const later = [read('a', forever), read('a', forever)];
  await tick();
  expect(open).toHaveLength(1);
  open[0]?.answer();
  expect(await first).toBe(1);
  await tick();
  expect(open).toHaveLength(2);
  const last = read('a', forever);
  open[1]?.answer();
  expect(await Promise.all(later)).toEqual([2, 2]);
  await tick();
  open[2]?.answer();
  expect(await last).toBe(3);
});

test('readings that would follow each other at once are kept apart, so that more share them; the first of a while begins at once', async () => {
  const { read, open } = byHand(60);
  const began = performance.now();
  const first = read('a', forever);
  expect(open).toHaveLength(1);
  open[0]?.answer();
  expect(await first).toBe(1);
  expect(performance.now() - began).toBeLessThan(50);
  const shared = [read('a', forever)];
  await tick();
  shared.push(read('a', forever));
  expect(open).toHaveLength(1);
  while (open.length < 2) await tick();
  expect(performance.now() - began).toBeGreaterThan(55);
  open[1]?.answer();
  expect(await Promise.all(shared)).toEqual([2, 2]);
  await new Promise((resolve) => setTimeout(resolve, 80));
  const later = read('a', forever);
  expect(open).toHaveLength(3);
  open[2]?.answer();
  expect(await later).toBe(3);
});

test('one that is stuck keeps the others for half a second only', async () => {
  const { read, open } = byHand();
  const stuck = read('a', forever);
  const after = read('a', forever);
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(open).toHaveLength(2);
  open[1]?.answer();
  expect(await after).toBe(2);
  open[0]?.answer();
  expect(await stuck).toBe(1);
});

test('keys do not wait for each other; a reading that fails takes only its own callers with it', async () => {
  const { read, open } = byHand();
  const [a, after, b] = [read('a', forever), read('a', forever), read('b', forever)];
  expect(open.map((one) => one.key)).toEqual(['a', 'b']);
  open[1]?.answer();
  expect(await b).toBe(2);
  open[0]?.fail(new Error('away'));
  await expect(a).rejects.toThrow('away');
  await tick();
  open[2]?.answer();
  expect(await after).toBe(3);
});

test('a caller whose time is over leaves; the others get their answer', async () => {
  const { read, open } = byHand();
  const short = new AbortController();
  const [first, second] = [read('a', short.signal), read('a', forever)];
  short.abort();
  await expect(first).rejects.toThrow('late a');
  await expect(read('a', short.signal)).rejects.toThrow('late a');
  open[0]?.answer();
  await tick();
  open[1]?.answer();
  expect(await second).toBe(2);
});
