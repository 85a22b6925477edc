import { expect, test } from 'vitest';
import type { WireEvent, WireGrant } from '../../src/cli/wire.ts';
import { about, clock, endInWords, figure, grouped, listed, relative, sentence } from '../../src/cli/words.ts';

const now = new Date('2026-11-24T03:31:00Z');

test('times are UTC, with the day only when it is another one', () => {
  expect(clock('2026-11-24T05:12:07+01:00', now)).toBe('04:12:07');
  expect(clock('2026-11-25T00:00:00Z', now)).toBe('2026-11-25 00:00:00');
  expect(relative('2026-11-24T03:57:00Z', now)).toBe('in 26 min');
  expect(relative('2026-11-24T03:30:20Z', now)).toBe('40 s ago');
});

test('durations and figures', () => {
  expect([0, 59.2, 2_472, 3_729].map(figure)).toEqual(['00:00', '01:00', '41:12', '1:02:09']);
  expect([5, 3_480, 10_800, 200_000].map(about)).toEqual(['5 s', '58 min', '3 h', '2 d']);
  expect([1, 1_234, 18_204, 1_000_000].map(grouped)).toEqual(['1', '1 234', '18 204', '1 000 000']);
  expect(listed(['a', 'b', 'c'], 'or')).toBe('a, b or c');
});

test('a type of event that this version does not know is named, and names are made safe', () => {
  const event = { type: 'grant.extended', actor: { id: 'per_1', name: 'x\u001b[2J', via: 'web' }, data: {} } as unknown as WireEvent;
  expect(sentence(event)).toBe('grant.extended');
  expect(sentence({ ...event, type: 'request.approved' })).toBe('x\\u001b[2J approved');
  expect(sentence({ ...event, type: 'constructor' })).toBe('constructor');
});

test('why a grant ended is said with its note', () => {
  expect(endInWords({ endReason: 'revoked', endNote: 'too wide' } as WireGrant)).toBe('revoked: “too wide”');
});
