/** Who may ask and decide, and when it is enough; quorums are compared with a brute-force search that shares no code. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ApprovalRule, Entitlement, People } from '../../src/domain/entitlement.ts';
import {
  assertMayAsk,
  fillRules,
  impossibleRule,
  isOneOf,
  longest,
  type Member,
  mayAsk,
  mayBreakGlass,
  mayDecide,
  mayReview,
  quorumMet,
} from '../../src/domain/policy.ts';
import { refusedWith } from './refusal.ts';
import { entitlementOf, member, people } from './samples.ts';

const nobody = people();
const rule = (of: People, count = 1): ApprovalRule => ({ of, count });

describe('people', () => {
  test('by group or by subject; empty lists are nobody', () => {
    expect(isOneOf(people(['a'], []), member('x', 'b', 'a'))).toBe(true);
    expect(isOneOf(people([], ['x']), member('x'))).toBe(true);
    expect(isOneOf(people(['a'], ['y']), member('x', 'b'))).toBe(false);
    expect(isOneOf(nobody, member('x', 'a'))).toBe(false);
    expect(isOneOf(nobody, member('x'))).toBe(false);
    // A subject is not a group, and the id is not the subject.
    expect(isOneOf(people(['x'], ['a']), member('x', 'a'))).toBe(false);
    expect(isOneOf(people([], ['per_x']), member('x'))).toBe(false);
  });

  test('an entitlement whose lists are empty is open to nobody, in any part', () => {
    const closed = entitlementOf({
      eligible: nobody,
      approval: [rule(nobody)],
      breakGlass: { eligible: nobody, maxDurationSeconds: 60 },
      review: { of: nobody, withinSeconds: 60 },
    });
    fc.assert(
      fc.property(fc.string(), fc.array(fc.string()), (subject, groups) => {
        const someone = member(subject, ...groups);
        expect([mayAsk(closed, someone), mayBreakGlass(closed, someone), mayDecide([closed], someone), mayReview([closed], someone)]).toEqual([
          false,
          false,
          false,
          false,
        ]);
        expect(quorumMet([closed], 'per_other', [someone])).toBe(false);
      }),
    );
    expect(mayBreakGlass(entitlementOf({ breakGlass: null }), member('x', 'oncall'))).toBe(false);
    expect(mayDecide([], member('x', 'leads'))).toBe(false);
    expect(mayReview([], member('x', 'leads'))).toBe(false);
  });
});

describe('quorum', () => {
  const groups = ['a', 'b', 'c'];
  const anyMember = fc.record({ id: fc.constantFrom('per_1', 'per_2', 'per_3', 'per_4', 'per_5'), groups: fc.subarray(groups) });
  const anyRule = fc.record({ groups: fc.subarray(groups), subjects: fc.subarray(['1', '2', '3']), count: fc.integer({ min: 1, max: 3 }) });
  const rulesOf = fc.array(
    anyRule.map(({ count, ...of }): ApprovalRule => ({ of, count })),
    { minLength: 1, maxLength: 3 },
  );
  const membersOf = fc
    .uniqueArray(anyMember, { selector: (one) => one.id, maxLength: 5 })
    .map((list): Member[] => list.map(({ id, groups: of }) => ({ id, subject: id.slice(4), groups: of })));

  /** Tries every way of giving each person one seat or none. */
  function someWayWorks(rules: readonly ApprovalRule[], approvers: readonly Member[], open = rules.map((one) => one.count)): boolean {
    if (open.every((count) => count === 0)) return true;
    const [first, ...rest] = approvers;
    if (!first) return false;
    return (
      someWayWorks(rules, rest, open) ||
      rules.some(
        ({ of }, index) =>
          (open[index] ?? 0) > 0 &&
          (of.subjects.includes(first.subject) || of.groups.some((group) => first.groups.includes(group))) &&
          someWayWorks(
            rules,
            rest,
            open.map((count, at) => (at === index ? count - 1 : count)),
          ),
      )
    );
  }

  test('invariant 14: agrees with a search of every way to seat people, whatever the groups overlap', () => {
    fc.assert(
      fc.property(rulesOf, membersOf, (rules, approvers) => {
        expect(quorumMet([entitlementOf({ approval: rules })], 'per_requester', approvers)).toBe(someWayWorks(rules, approvers));
      }),
      { numRuns: 1_000 },
    );
  });

  test('invariant 14: no rule is filled above its count, nobody is counted twice, and more approvers never mean less', () => {
    fc.assert(
      fc.property(rulesOf, membersOf, (rules, approvers) => {
        const filled = fillRules(rules, [...approvers, ...approvers]);
        for (const [index, count] of filled.entries()) expect(count).toBeLessThanOrEqual(rules[index]?.count ?? 0);
        const sum = (list: number[]) => list.reduce((a, b) => a + b, 0);
        expect(sum(filled)).toBeLessThanOrEqual(approvers.length);
        expect(sum(fillRules(rules, approvers.slice(1)))).toBeLessThanOrEqual(sum(filled));
        expect(sum(fillRules(rules, approvers.toReversed()))).toBe(sum(filled));
      }),
    );
  });

  test('one person in two groups counts once in an entitlement, and once in each of two', () => {
    const both = member('x', 'leads', 'security');
    const two = [rule(people(['leads'])), rule(people(['security']))];
    expect(quorumMet([entitlementOf({ approval: two })], 'per_r', [both])).toBe(false);
    expect(quorumMet([entitlementOf({ approval: two })], 'per_r', [both, member('y', 'leads')])).toBe(true);
    expect(quorumMet([entitlementOf({ approval: two })], 'per_r', [member('y', 'leads'), both])).toBe(true);
    expect(quorumMet([entitlementOf({ approval: [two[0]!] }), entitlementOf({ approval: [two[1]!] })], 'per_r', [both])).toBe(true);
  });

  test('the same person under one id twice is one person', () => {
    const x = member('x', 'leads');
    expect(quorumMet([entitlementOf({ approval: [rule(people(['leads']), 2)] })], 'per_r', [x, x, { ...x }])).toBe(false);
  });

  test('invariant 13: the requester is never counted, however often they approve and whatever they are', () => {
    fc.assert(
      fc.property(rulesOf, membersOf, membersOf, (rules, approvers, more) => {
        const requester = approvers[0]?.id ?? 'per_1';
        const entitlement = entitlementOf({ approval: rules });
        const others = approvers.filter((one) => one.id !== requester);
        const again = more.filter((one) => one.id === requester);
        expect(quorumMet([entitlement], requester, [...others, ...again])).toBe(quorumMet([entitlement], requester, others));
      }),
    );
    expect(quorumMet([entitlementOf({ approval: [rule(people(['leads']))] })], 'per_x', [member('x', 'leads')])).toBe(false);
  });

  test('all entitlements must be met; none at all, or one without rules, is never met', () => {
    const easy = entitlementOf({ approval: [rule(people(['leads']))] });
    const hard = entitlementOf({ approval: [rule(people(['leads']), 2)] });
    const [x, y] = [member('x', 'leads'), member('y', 'leads')];
    expect(quorumMet([easy], 'per_r', [x])).toBe(true);
    expect(quorumMet([easy, hard], 'per_r', [x])).toBe(false);
    expect(quorumMet([easy, hard], 'per_r', [x, y])).toBe(true);
    expect(quorumMet([], 'per_r', [x, y])).toBe(false);
    expect(quorumMet([entitlementOf({ approval: [] })], 'per_r', [x, y])).toBe(false);
    expect(quorumMet([easy, entitlementOf({ approval: [] })], 'per_r', [x, y])).toBe(false);
  });
});

describe('asking', () => {
  const ro = entitlementOf({ name: 'ro', maxDurationSeconds: 3_600, breakGlass: { eligible: people(['oncall']), maxDurationSeconds: 900 } });
  const rw = entitlementOf({ name: 'rw', eligible: people(['seniors']), maxDurationSeconds: 1_800, breakGlass: null });
  const ask = (entitlements: Entitlement[], durationSeconds: number, breakGlass: boolean, ...groups: string[]) =>
    refusedWith(() => assertMayAsk({ entitlements, durationSeconds, breakGlass }, member('x', ...groups)));

  test('refused by code: all or nothing', () => {
    expect(ask([ro], 60, false, 'others')).toBe('not_eligible');
    expect(ask([ro], 60, false)).toBe('not_eligible');
    expect(ask([ro, rw], 60, false, 'oncall')).toBe('not_eligible');
    expect(ask([ro, rw], 60, true, 'oncall', 'seniors')).toBe('break_glass_not_offered');
    expect(ask([ro], 60, true, 'seniors')).toBe('not_eligible');
  });

  test('the limit is a limit: the second after it is refused, and the shortest of several counts', () => {
    const asks = (entitlements: Entitlement[], durationSeconds: number, breakGlass = false) =>
      assertMayAsk({ entitlements, durationSeconds, breakGlass }, member('x', 'oncall', 'seniors'));
    asks([ro], 3_599);
    asks([ro], 3_600);
    expect(ask([ro], 3_601, false, 'oncall')).toBe('duration_too_long');
    asks([ro, rw], 1_800);
    expect(ask([ro, rw], 1_801, false, 'oncall', 'seniors')).toBe('duration_too_long');
    asks([ro], 900, true);
    expect(ask([ro], 901, true, 'oncall')).toBe('duration_too_long');
    expect(() => asks([ro, rw], 1_801)).toThrow('The most for rw is 30m; you asked for 30m1s.');
  });

  test('the stricter limit wins, in whatever order they are asked for', () => {
    expect(longest([ro, rw], false)).toEqual({ most: 1_800, name: 'rw' });
    expect(longest([rw, ro], false)).toEqual({ most: 1_800, name: 'rw' });
    // One that cannot be broken open allows no time at all.
    expect(longest([ro, rw], true)).toEqual({ most: 0, name: 'rw' });
  });
});

describe('a rule that can never be met', () => {
  const impossible = (approval: ApprovalRule[], eligible: People = people(['oncall'])) => impossibleRule(entitlementOf({ approval, eligible }));

  test.each<[string, ApprovalRule[], People | undefined, RegExp]>([
    ['no rule', [], undefined, /approval has no rule/],
    ['nobody named', [rule(nobody)], undefined, /names no group and no person/],
    ['nobody named in the second rule', [rule(people(['leads'])), rule(nobody)], undefined, /names no group and no person/],
    ['a count above the named people', [rule(people([], ['a', 'b']), 3)], undefined, /needs 3 people and names 2/],
    ['one person named twice', [rule(people([], ['a', 'a']), 2)], undefined, /needs 2 people and names 1/],
    ['only the requester', [rule(people([], ['a']))], people([], ['a']), /only the requester/],
    ['each asker is needed', [rule(people([], ['a', 'b']), 2)], people([], ['a', 'b']), /only the requester/],
    ['two rules of one person', [rule(people([], ['a'])), rule(people([], ['a']))], undefined, /need more people than they name/],
    // Story: a rule for a group beside them hid that two rules share their only person.
    ['two rules of one person beside a group', [rule(people(['leads'])), rule(people([], ['a'])), rule(people([], ['a']))], undefined, /more people/],
    // Story: each rule alone could be met without the asker, but not both, since a person counts once.
    ['two rules that need the only asker', [rule(people([], ['a', 'b'])), rule(people([], ['b']))], people([], ['a']), /only the requester/],
  ])('%s', (_, approval, eligible, words) => {
    expect(impossible(approval, eligible)).toMatch(words);
  });

  test.each<[string, ApprovalRule[], People | undefined]>([
    ['a group, whatever the count: its members are not known', [rule(people(['leads']), 20)], undefined],
    ['a group beside a person', [rule(people(['leads'], ['a']), 2)], undefined],
    ['the requester, and somebody else', [rule(people([], ['a', 'b']))], people([], ['a', 'b'])],
    ['the requester, who is not the only one who may ask', [rule(people([], ['a']))], people([], ['a', 'b'])],
    ['the requester, where a group may ask too', [rule(people([], ['a']))], people(['oncall'], ['a'])],
    ['an entitlement for nobody', [rule(people([], ['a']))], nobody],
    ['two rules and two people', [rule(people([], ['a', 'b'])), rule(people([], ['a']))], undefined],
  ])('not: %s', (_, approval, eligible) => {
    expect(impossible(approval, eligible)).toBeUndefined();
  });

  test('is said exactly when no set of the named people can meet it, for rules of people only', () => {
    const subjects = ['a', 'b', 'c'];
    const rules = fc.array(
      fc.record({ of: fc.subarray(subjects, { minLength: 1 }).map((named) => people([], named)), count: fc.integer({ min: 1, max: 3 }) }),
      { minLength: 1, maxLength: 3 },
    );
    fc.assert(
      fc.property(rules, fc.subarray(['a', 'b', 'c', 'd'], { minLength: 1 }), (approval, askers) => {
        const entitlement = entitlementOf({ approval, eligible: people([], askers) });
        const everybody = subjects.map((subject) => member(subject));
        const possible = askers.some((asker) => quorumMet([entitlement], `per_${asker}`, everybody));
        expect(impossibleRule(entitlement) === undefined).toBe(possible);
      }),
      { numRuns: 500 },
    );
  });
});
