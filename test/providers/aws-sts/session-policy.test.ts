import { describe, expect, test } from 'vitest';
import { grantSchema } from '../../../src/providers/aws-sts/config.ts';
import { persistingActions, policyInWords, reachesPersistence, sessionPolicy } from '../../../src/providers/aws-sts/session-policy.ts';

const end = new Date('2026-11-24T09:15:30.900Z');
const instant = '2026-11-24T09:15:30Z';
const over = (actions: string[]) => ({ Effect: 'Deny', Action: actions, Resource: '*', Condition: { DateGreaterThanEquals: { 'aws:CurrentTime': instant } } });
const statementsOf = (grant: object) => (JSON.parse(sessionPolicy(grantSchema.parse({ role: 'r', ...grant }), end)) as { Statement: unknown[] }).Statement;

describe('the session policy', () => {
  test('invariant 1: every allow carries the end, cut to whole seconds, and a deny carries it once more', () => {
    expect(statementsOf({})).toEqual([
      { Effect: 'Allow', Action: '*', Resource: '*', Condition: { DateLessThan: { 'aws:CurrentTime': instant } } },
      { Effect: 'Deny', Action: persistingActions, Resource: '*' },
      over(['*']),
    ]);
  });

  test("the entitlement's conditions stay, its denies are left as they are", () => {
    const deny = { Effect: 'Deny', Action: 's3:DeleteObject', Resource: '*' };
    const allow = {
      Effect: 'Allow',
      Action: ['s3:*', 'sqs:SendMessage'],
      Resource: '*',
      Condition: { DateLessThan: { 'aws:TokenIssueTime': '2030-01-01T00:00:00Z' }, Bool: { 'aws:SecureTransport': true } },
    };
    expect(statementsOf({ policy: { Version: '2012-10-17', Statement: [allow, deny] } })).toEqual([
      {
        ...allow,
        Condition: { DateLessThan: { 'aws:TokenIssueTime': '2030-01-01T00:00:00Z', 'aws:CurrentTime': instant }, Bool: { 'aws:SecureTransport': true } },
      },
      deny,
      over(['s3:*', 'sqs:*']),
    ]);
  });

  test.each([
    ['s3:*', false],
    ['iam:GetRole', true],
    ['IAM:CreateUser', true],
    ['i?m:*', true],
    ['*', true],
    ['s*:*', true],
    ['ssm:StartSession', false],
  ])('persistence is within reach of %s: %s', (action, expected) => {
    expect(reachesPersistence(grantSchema.parse({ role: 'r', policy: { Statement: { Effect: 'Allow', Action: action, Resource: '*' } } }))).toBe(expected);
  });

  test('an allow of everything but something reaches persistence too, and its end is on everything', () => {
    const policy = { Statement: { Effect: 'Allow', NotAction: 'iam:*', Resource: '*' } };
    expect(reachesPersistence(grantSchema.parse({ role: 'r', policy }))).toBe(true);
    expect(statementsOf({ policy }).at(-1)).toEqual(over(['*']));
  });

  test('in words, it says what may outlive the grant', () => {
    expect(policyInWords(grantSchema.parse({ role: 'r', persistence: 'allowed' })).join()).toContain('outlives the grant');
    expect(
      policyInWords(grantSchema.parse({ role: 'r', policy: { Statement: { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::orders/*' } } })),
    ).toEqual(['session policy: Allow s3:GetObject on arn:aws:s3:::orders/*']);
  });
});
