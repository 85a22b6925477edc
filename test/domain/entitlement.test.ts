import { expect, test } from 'vitest';
import { peopleInWords, policyHash, policyInWords } from '../../src/domain/entitlement.ts';
import { entitlementOf, people } from './samples.ts';

test('people in words', () => {
  expect(peopleInWords(people())).toBe('nobody');
  expect(peopleInWords(people(['oncall']))).toBe('members of oncall');
  expect(peopleInWords(people(['leads', 'security'], ['ann']))).toBe('ann or members of leads or security');
});

test('the policy in words says who, how long, who decides, and what break-glass is', () => {
  expect(
    policyInWords(
      entitlementOf({
        approval: [
          { of: people(['leads']), count: 2 },
          { of: people([], ['ann']), count: 1 },
        ],
      }),
    ),
  ).toEqual([
    'For members of oncall, at most 1 hour.',
    '2 of members of leads, and 1 of ann must approve within 30 minutes. Nobody decides on their own request.',
  ]);
  expect(policyInWords(entitlementOf({ approval: [] }))[1]).toBe('Nobody can approve it.');
  expect(policyInWords(entitlementOf({ breakGlass: { eligible: people(['oncall']), maxDurationSeconds: 900 } }))[2]).toBe(
    'In an emergency members of oncall may break the glass: it opens at once for at most 15 minutes, and members of leads must review it within 2 days.',
  );
});

test('the hash of a policy is of every field, and of nothing else', () => {
  expect(policyHash(entitlementOf())).toBe(policyHash(Object.fromEntries(Object.entries(entitlementOf()).reverse()) as never));
  expect(policyHash(entitlementOf({ maxDurationSeconds: 3_601 }))).not.toBe(policyHash(entitlementOf()));
  const snapshot = { entitlement: entitlementOf(), described: { summary: 'a login', details: [] } };
  expect(policyHash([snapshot])).not.toBe(policyHash([{ ...snapshot, described: { summary: 'another login', details: [] } }]));
});
