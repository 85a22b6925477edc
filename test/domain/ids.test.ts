import { expect, test } from 'vitest';
import { type IdKind, idPrefixes, isId, newId } from '../../src/domain/ids.ts';

const kinds = Object.keys(idPrefixes) as IdKind[];

test.each(kinds)('%s: prefix and UUIDv7 (RFC 9562 §5.7), and no other kind', (kind) => {
  const id = newId(kind);
  expect(id).toMatch(new RegExp(`^${idPrefixes[kind]}_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$`));
  expect(kinds.filter((other) => isId(other, id))).toEqual([kind]);
});

test('ids sort by their time and do not repeat', () => {
  const ids = [0, 1, 255, 256, 1_700_000_000_000, 2 ** 48 - 1].map((at) => newId('event', at));
  expect(ids.toSorted()).toEqual(ids);
  expect(ids[4]).toMatch(/^evt_018bcfe56800/);
  expect(new Set(Array.from({ length: 10_000 }, () => newId('lease', 1))).size).toBe(10_000);
});

test.each([
  '',
  'req',
  'req_',
  'gnt_',
  `req_${'0'.repeat(31)}`,
  `req_${'0'.repeat(33)}`,
  `req_${'A'.repeat(32)}`,
  ` req_${'0'.repeat(32)}`,
  `req_${'0'.repeat(32)}\n`,
  `req-${'0'.repeat(32)}`,
])('%j is no id', (text) => {
  expect(isId('request', text)).toBe(false);
});
