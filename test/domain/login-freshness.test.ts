/** How fresh and how strong a login must be: the pure rule. */
import { describe, expect, test } from 'vitest';
import type { Entitlement } from '../../src/domain/entitlement.ts';
import { type Act, type LoginProof, loginNeed, loginRefusal } from '../../src/domain/policy.ts';
import { entitlementOf } from './samples.ts';

const now = new Date('2026-03-01T12:00:00Z');
const ago = (seconds: number): Date => new Date(now.getTime() - seconds * 1_000);
const proof = (more: Partial<LoginProof> = {}): LoginProof => ({ via: 'web', authAt: ago(3_600), acr: null, groupsReadAt: ago(60), ...more });
const judged = (act: Act, entitlements: readonly Entitlement[], given: LoginProof) => loginRefusal(act, entitlements, given, 900, now)?.code ?? 'enough';
const stepUp = (maxAgeSeconds: number, acr?: string) => entitlementOf({ stepUp: { maxAgeSeconds, ...(acr ? { acr } : {}) } });

test('without step-up any login asks, and decides while its groups are fresh', () => {
  expect(judged('ask', [entitlementOf()], proof({ groupsReadAt: ago(80_000) }))).toBe('enough');
  expect(judged('decide', [entitlementOf()], proof({ groupsReadAt: ago(900) }))).toBe('enough');
  expect(judged('decide', [entitlementOf()], proof({ groupsReadAt: ago(901) }))).toBe('groups_stale');
});

test.each(['ask', 'decide', 'break-glass'] as const)('%s: at the limit is fresh enough, beyond it is not, and a time that is none never is', (act) => {
  const strict = [stepUp(120)];
  expect(judged(act, strict, proof({ authAt: ago(120) }))).toBe('enough');
  expect(judged(act, strict, proof({ authAt: ago(121) }))).toBe('step_up_required');
  expect(judged(act, strict, proof({ authAt: new Date(Number.NaN) }))).toBe('step_up_required');
});

test('break-glass always needs five minutes or less, whatever the entitlement says', () => {
  expect(judged('break-glass', [entitlementOf()], proof({ authAt: ago(300) }))).toBe('enough');
  expect(judged('break-glass', [entitlementOf()], proof({ authAt: ago(301) }))).toBe('step_up_required');
  expect(judged('break-glass', [stepUp(3_600)], proof({ authAt: ago(301) }))).toBe('step_up_required');
  expect(loginNeed('break-glass', [stepUp(60)], 900)).toEqual({ maxAgeSeconds: 60, groupsMaxAgeSeconds: 900 });
});

test('the strictest of several counts, and every class that is named', () => {
  const several = [stepUp(600, 'mfa'), stepUp(60), entitlementOf()];
  expect(loginNeed('decide', several, 900)).toEqual({ maxAgeSeconds: 60, acrValues: ['mfa'], groupsMaxAgeSeconds: 900 });
  expect(judged('decide', several, proof({ authAt: ago(30) }))).toBe('step_up_required');
  expect(judged('decide', several, proof({ authAt: ago(30), acr: 'password' }))).toBe('step_up_required');
  expect(judged('decide', several, proof({ authAt: ago(30), acr: 'mfa' }))).toBe('enough');
  const two = loginRefusal('ask', [stepUp(600, 'mfa'), stepUp(600, 'card')], proof({ authAt: ago(1), acr: 'mfa' }), 900, now);
  expect(two).toMatchObject({ code: 'step_up_required', login: { acrValues: ['mfa', 'card'] } });
  expect(two?.next).toContain('one by one');
});

test('a missing proof is told before missing groups: the fresh login brings both', () => {
  expect(judged('decide', [stepUp(60)], proof({ groupsReadAt: ago(10_000) }))).toBe('step_up_required');
});

describe('Slack proves nothing', () => {
  const slack = (more: Partial<LoginProof> = {}) => proof({ via: 'slack', authAt: now, ...more });
  const decides = (...modes: Entitlement['slackDecision'][]) => modes.map((mode) => entitlementOf(mode ? { slackDecision: mode } : {}));
  test.each([
    [[undefined], 'slack_may_not_decide'],
    [['notify'], 'slack_may_not_decide'],
    [['allow', 'notify'], 'slack_may_not_decide'],
    [['allow'], 'enough'],
    [['allow', 'allow-with-step-up'], 'step_up_required'],
    [['allow-with-step-up'], 'step_up_required'],
  ] as const)('slackDecision %j: %s', (modes, expected) => {
    expect(judged('decide', decides(...modes), slack())).toBe(expected);
  });
  test('allow is judged as any other way: groups and step-up count, even where a time was claimed', () => {
    expect(judged('decide', decides('allow'), slack({ groupsReadAt: ago(901) }))).toBe('groups_stale');
    expect(judged('decide', [{ ...stepUp(600), slackDecision: 'allow' }], slack())).toBe('step_up_required');
    expect(judged('decide', [{ ...stepUp(9e9, 'mfa'), slackDecision: 'allow' }], slack({ acr: 'mfa' }))).toBe('step_up_required');
  });
  test('asking goes on where no step-up stands; break-glass never does', () => {
    expect(judged('ask', [entitlementOf()], slack())).toBe('enough');
    expect(judged('ask', [stepUp(600)], slack())).toBe('step_up_required');
    expect(judged('break-glass', [entitlementOf()], slack())).toBe('step_up_required');
  });
});
