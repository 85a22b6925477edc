/** How a target's lane is set: the same for every kind of target. */
import { expect, test } from 'vitest';
import { read, saidOf, sample } from './sample.ts';

const withLane = (lane: string): string => sample.replace(/^( +)kind: postgres$/m, `$1kind: postgres\n$1lane: ${lane}`);

test('unless it is set, so many leases are ended at once as the kind of the target bears, as fast as it goes', async () => {
  expect((await read(sample)).targets.get('orders-db')?.lane).toEqual({ concurrency: 32 });
});

test('what is set is kept beside the settings of the kind', async () => {
  const target = (await read(withLane('{ concurrency: 8, perSecond: 2.5 }'))).targets.get('orders-db');
  expect(target?.lane).toEqual({ concurrency: 8, perSecond: 2.5 });
  expect(target?.config).not.toHaveProperty('lane');
});

test.each([
  ['{ concurrency: 0 }', 'targets.orders-db.lane.concurrency'],
  ['{ concurrency: 33 }', 'targets.orders-db.lane.concurrency'],
  ['{ perSecond: 0 }', 'targets.orders-db.lane.perSecond'],
  ['{ perSecond: many }', 'a number belongs here'],
  ['{ perSeconds: 5 }', 'did you mean "perSecond"?'],
  ['fast', 'a block belongs here'],
])('lane: %s is a fault in words', async (lane, words) => {
  expect((await saidOf(withLane(lane))).join()).toContain(words);
});
