/** When Redis is asked about a job, and when it has had its chance. */
import { expect, test } from 'vitest';
import { placements } from '../../src/queue/placements.ts';
import type { Job } from '../../src/queue/port.ts';

const begin = () => {
  let at = 1_000_000;
  const placed = placements({ now: () => at, patienceMs: 30_000 });
  const job = (dueInMs: number): Job => ({ id: 'grant-due-a-0', kind: 'grant-due', lane: 'expiry', dueAt: new Date(at + dueInMs), subject: 'a', epoch: 0 });
  return { placed, job, pass: (ms: number) => (at += ms) };
};

test('it is put once, asked about when it is a second late and then every ten, and run here after thirty', () => {
  const { placed, job, pass } = begin();
  const one = job(5_000);
  const said: string[] = [];
  for (let second = 0; second <= 36; second += 2) {
    said.push(placed.next(one));
    pass(2_000);
  }
  expect(said.slice(0, 3)).toEqual(['put', 'leave', 'leave']);
  expect(said.map((what, index) => [index * 2, what]).filter(([, what]) => what !== 'leave')).toEqual([
    [0, 'put'],
    [6, 'look'],
    [16, 'look'],
    [26, 'look'],
    [36, 'here'],
  ]);
});

test('while jobs of its lane begin it only waits its turn: asked about after thirty seconds, and run here after forty-five', () => {
  const { placed, job, pass } = begin();
  const [one, other] = [job(0), { ...job(0), id: 'grant-due-b-0' }];
  const said: [number, string][] = [];
  placed.next(other);
  for (let second = 0; second < 45; second += 1) {
    placed.began(other);
    const next = placed.next(one);
    if (next !== 'leave') said.push([second, next]);
    pass(1_000);
  }
  expect(said).toEqual([
    [0, 'put'],
    [30, 'look'],
  ]);
  expect(placed.next(one)).toBe('here');
});

test('what begins in its lane and was put there by a stranger does not count', () => {
  const { placed, job, pass } = begin();
  const one = job(0);
  placed.next(one);
  for (let second = 0; second < 30; second += 2) {
    placed.began({ ...one, id: 'grant-due-stranger-0' });
    pass(2_000);
  }
  expect(placed.next(one)).toBe('here');
});

test('one that was overdue when it was put in has the same patience from then on', () => {
  const { placed, job, pass } = begin();
  const one = job(-3_600_000);
  expect(placed.next(one)).toBe('put');
  pass(500);
  expect(placed.next(one)).toBe('leave');
  pass(29_000);
  expect(placed.next(one)).toBe('look');
  pass(1_000);
  expect(placed.next(one)).toBe('here');
});

test('what is emptied, ended, or no longer wanted is put anew', () => {
  const { placed, job, pass } = begin();
  const one = job(60_000);
  placed.next(one);
  placed.clear();
  expect(placed.next(one)).toBe('put');
  placed.delete(one.id);
  expect(placed.next(one)).toBe('put');
  expect(placed.waiting(() => false)).toBe(1);
  pass(89_000);
  placed.prune();
  expect(placed.waiting(() => false)).toBe(1);
  pass(2_000);
  placed.prune();
  expect(placed.waiting(() => false)).toBe(0);
});
