import { describe, expect, test } from 'vitest';
import { type Shown, seenHash, shortSeen } from '../../src/domain/seen.ts';
import { entitlementOf, people } from './samples.ts';

const shown: Shown = {
  requestId: 'req_1',
  requester: { id: 'per_1', name: 'Ann' },
  entitlements: ['orders-readonly', 'orders-write'],
  durationSeconds: 3_600,
  reason: 'orders are stuck',
  incident: 'INC-1',
  startAt: new Date('2026-03-01T12:00:00Z'),
  breakGlass: false,
  policyHash: 'a'.repeat(64),
  current: [entitlementOf(), null],
};

describe('invariant 15: the hash changes with every field that is shown', () => {
  const now = entitlementOf();
  const changes: { [field in keyof Shown]: Partial<Shown>[] } = {
    requestId: [{ requestId: 'req_2' }],
    requester: [{ requester: { id: 'per_2', name: 'Ann' } }, { requester: { id: 'per_1', name: 'Bo' } }],
    entitlements: [
      { entitlements: ['orders-readonly'] },
      { entitlements: ['orders-write', 'orders-readonly'] },
      { entitlements: ['orders-readonly,orders-write'] },
    ],
    durationSeconds: [{ durationSeconds: 3_601 }],
    reason: [{ reason: 'orders are stuck ' }],
    incident: [{ incident: 'INC-2' }, { incident: null }],
    startAt: [{ startAt: new Date('2026-03-01T12:00:00.001Z') }, { startAt: null }],
    breakGlass: [{ breakGlass: true }],
    policyHash: [{ policyHash: 'b'.repeat(64) }],
    current: [
      { current: [now] },
      { current: [null, null] },
      { current: [null, now] },
      ...Object.entries({
        opens: 'write the orders database',
        target: 'other-db',
        kind: 'vault',
        grant: { role: 'orders_rw' },
        grantInWords: 'role orders_rw',
        owner: 'others',
        eligible: people(['everybody']),
        approval: [],
        maxDurationSeconds: 3_601,
        decideWithinSeconds: 1_801,
        breakGlass: { eligible: people(), maxDurationSeconds: 1 },
        review: { of: people(), withinSeconds: 1 },
        name: 'other',
      }).map(([field, value]) => ({ current: [{ ...now, [field]: value }, null] })),
    ],
  };

  test.each(Object.entries(changes).flatMap(([field, list]) => list.map((change, index) => [`${field} ${index + 1}`, change] as const)))('%s', (_, change) => {
    expect(seenHash({ ...shown, ...change })).not.toBe(seenHash(shown));
  });

  test('every field of an entitlement is among those tried', () => {
    expect(changes.current).toHaveLength(3 + Object.keys(now).length);
    expect(Object.keys(changes).toSorted()).toEqual(Object.keys(shown).toSorted());
  });

  test('and with nothing else: not with the order in which fields were written', () => {
    const reversed = Object.fromEntries(Object.entries(shown).reverse()) as unknown as Shown;
    expect(seenHash(reversed)).toBe(seenHash(shown));
    expect(seenHash(structuredClone(shown))).toBe(seenHash(shown));
    expect(seenHash(shown)).toMatch(/^[0-9a-f]{64}$/);
  });
});

test('the short form is the first eight digits', () => {
  expect(shortSeen('7f3a91c2ff')).toBe('7f3a 91c2');
});
