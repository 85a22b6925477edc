/** How often jobs may begin. */
import { expect, test } from 'vitest';
import { rateOf } from '../../src/queue/rate.ts';

/** How many begin within so many seconds, when there is always one that wants to. */
function begun(perSecond: number | undefined, seconds: number): number {
  let at = 5_000;
  const rate = rateOf(perSecond, () => at);
  let count = 0;
  while (at < 5_000 + seconds * 1_000 && count < 1_000_000) {
    const waitMs = rate.take();
    if (waitMs === 0) count++;
    else at += waitMs;
  }
  return count;
}

test.each([
  [10, 60, 610],
  [2.5, 60, 153],
  [0.5, 60, 31],
  [1_000, 10, 11_000],
])('%d a second for %d s: %d at most, with a second’s worth at once, and nearly as many', (perSecond, seconds, most) => {
  const count = begun(perSecond, seconds);
  expect(count).toBeLessThanOrEqual(most);
  expect(count).toBeGreaterThan(perSecond * seconds * 0.9);
});

test('without a rate nothing waits', () => {
  expect(begun(undefined, 1)).toBe(1_000_000);
});

test('what was not used is not saved up', () => {
  let at = 0;
  const rate = rateOf(3, () => at);
  at = 3_600_000;
  let count = 0;
  while (rate.take() === 0) count++;
  expect(count).toBe(3);
});
