import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countedLength, type Denied, denyDocument, longestInlinePolicies, overAt, policyName, readDenied } from '../../../src/providers/aws-sts/deny.ts';

const someone = fc.record({
  userId: fc.stringMatching(/^AROA[A-Z0-9]{17}:lse_[0-9a-f]{32}$/),
  writtenAt: fc.integer({ min: 1_700_000_000, max: 2_000_000_000 }),
});
const unique = fc.uniqueArray(someone, { selector: (one) => one.userId, maxLength: 40 });

describe('the policies that deny sessions', () => {
  test('what is written is read back, whoever shares a statement, and nobody is proven before his time', () => {
    fc.assert(
      fc.property(unique, fc.integer({ min: 1_700_000_000, max: 2_000_000_000 }), (denied, settledBefore) => {
        const read = readDenied(denyDocument(denied, settledBefore));
        expect(read.map((one) => one.userId).sort()).toEqual(denied.map((one) => one.userId).sort());
        for (const one of read) {
          const wrote = denied.find(({ userId }) => userId === one.userId) as Denied;
          expect(one.writtenAt).toBeGreaterThanOrEqual(wrote.writtenAt);
          if (wrote.writtenAt >= settledBefore) expect(one.writtenAt).toBe(wrote.writtenAt);
          else expect(one.writtenAt).toBeLessThan(settledBefore);
        }
      }),
    );
  });

  test('the same entries make the same text, in whatever order they come', () => {
    fc.assert(
      fc.property(unique, (denied) => {
        expect(denyDocument([...denied].reverse(), 1_800_000_000)).toBe(denyDocument(denied, 1_800_000_000));
      }),
    );
  });

  test('a hundred and fifty settled sessions stay below what a role holds', () => {
    const many = Array.from({ length: 150 }, (_, at) => ({
      userId: `AROA${'X'.repeat(17)}:lse_${at.toString(16).padStart(32, '0')}`,
      writtenAt: 1_700_000_000 + at,
    }));
    expect(countedLength(denyDocument(many, 1_800_000_000))).toBeLessThan(longestInlinePolicies);
  });

  test.each([
    ['not JSON', '{'],
    [
      'an allow',
      '{"Statement":[{"Sid":"Written1","Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:userid":["a"]},"DateLessThan":{"aws:TokenIssueTime":"2030-01-01T00:00:00Z"}}}]}',
    ],
    [
      'a further condition',
      '{"Statement":[{"Sid":"Written1","Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:userid":["a"],"aws:username":"x"},"DateLessThan":{"aws:TokenIssueTime":"2030-01-01T00:00:00Z"}}}]}',
    ],
    [
      'a narrower action',
      '{"Statement":[{"Sid":"Written1","Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:userid":["a"]},"DateLessThan":{"aws:TokenIssueTime":"2030-01-01T00:00:00Z"}}}]}',
    ],
    [
      'an issue time that is too early',
      '{"Statement":[{"Sid":"Written1700000000","Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:userid":["a"]},"DateLessThan":{"aws:TokenIssueTime":"2001-01-01T00:00:00Z"}}}]}',
    ],
    ['no statements', '{}'],
  ])('what no longer denies the whole session is not counted: %s', (_, text) => {
    expect(readDenied(text)).toEqual([]);
  });

  test('the name says when the policy is over: not before its last session, and at most sixteen minutes later', () => {
    fc.assert(
      fc.property(fc.date({ min: new Date('2026-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }), (end) => {
        const over = overAt(policyName(end, 'a1b2c3d4'));
        expect(over!.getTime()).toBeGreaterThan(end.getTime());
        expect(over!.getTime()).toBeLessThanOrEqual(end.getTime() + 16 * 60_000);
      }),
    );
  });

  test.each([
    'machines',
    'halligan-revoked',
    'halligan-revoked-soon-a1',
    'halligan-revoked-20261124T0915Z',
    'halligan-revoked-20261124T0915Z-a1 ',
    'x-halligan-revoked-20261124T0915Z-a1',
    'halligan-revoked-20261399T9999Z-a1',
    '',
  ])('a name that is not one of ours is never taken for one: %j', (name) => {
    // A date parser makes a date of nearly anything; a policy of the role's owner was once deleted for it.
    expect(overAt(name)).toBeNull();
  });
});
