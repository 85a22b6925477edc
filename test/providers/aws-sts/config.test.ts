import { describe, expect, test } from 'vitest';
import { grantSchema, roleOf, targetSchema } from '../../../src/providers/aws-sts/config.ts';
import { sourceIdentityOf } from '../../../src/providers/aws-sts/issue.ts';

const account = '123456789012';
const target = { account, region: 'eu-central-1', roles: ['ops/orders-ops'] };
const messages = (result: { success: boolean; error?: { issues: { path: PropertyKey[]; message: string }[] } }): string[] =>
  result.error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? [];

describe('roles', () => {
  test.each([
    ['orders-ops', `arn:aws:iam::${account}:role/orders-ops`],
    ['ops/on-call/orders-ops', `arn:aws:iam::${account}:role/ops/on-call/orders-ops`],
    ['arn:aws:iam::999999999999:role/ops/x', 'arn:aws:iam::999999999999:role/ops/x'],
  ])('%s', (text, arn) => {
    expect(roleOf(targetSchema.parse(target), text)).toMatchObject({ arn, name: arn.split('/').at(-1) });
  });

  test.each([
    ['cn-north-1', 'aws-cn'],
    ['us-gov-west-1', 'aws-us-gov'],
  ])('of a region in another partition: %s', (region, partition) => {
    expect(roleOf(targetSchema.parse({ ...target, region }), 'r').arn).toBe(`arn:${partition}:iam::${account}:role/r`);
  });

  test.each([
    '',
    '../admin',
    'ops/../admin',
    './x',
    'ops/',
    '/ops/x',
    'a b',
    'x\n',
    'arn:aws:iam::123:role/x',
    `arn:aws:iam::${account}:user/x`,
    '*',
    'orders-*',
    'x'.repeat(65),
  ])('refused: %j', (role) => {
    expect(messages(grantSchema.safeParse({ role })).join()).toContain('is not a role');
  });
});

describe('a target', () => {
  test.each<[object, string]>([
    [{ account: 123456789012 }, 'account: is the account number as text: put it into quotes'],
    [{ account: '1234' }, 'account: is an account number of twelve digits'],
    [{ roles: ['arn:aws:iam::999999999999:role/x'] }, 'roles.0: is a role of the account 999999999999'],
    [{ roles: ['aws-reserved/sso.amazonaws.com/AWSReservedSSO_Ops_1'] }, 'earlyEnd: must be false'],
    [{ endpoint: 'http://sts.example.com' }, 'endpoint: must be https, except on loopback'],
    [{ endpoint: 'https://user:word@sts.example.com' }, 'endpoint: must not hold a user or a password'],
    [{ region: 'Frankfurt' }, 'region: is a region such as'],
    [{ webIdentity: { role: 'halligan', tokenFile: '/token' } }, 'webIdentity.role: must be a whole ARN'],
  ])('%j', (more, fault) => {
    expect(messages(targetSchema.safeParse({ ...target, ...more })).join('\n')).toContain(fault);
  });

  test('of Identity Center is taken when it says that nothing there is ended early', () => {
    expect(targetSchema.safeParse({ ...target, roles: ['aws-reserved/sso.amazonaws.com/x'], earlyEnd: false }).success).toBe(true);
  });
});

describe('a grant', () => {
  const allow = { Effect: 'Allow', Action: 's3:GetObject', Resource: '*' };
  test.each<[string, object, string]>([
    ['a tag of 300 characters', { tags: { team: 'x'.repeat(300) } }, 'longer than the 256 characters'],
    ['a tag name of 300 characters', { tags: { ['x'.repeat(300)]: 'y' } }, 'tags'],
    ['a tag of ours', { tags: { 'halligan:lease': 'x' } }, 'tags'],
    ['a tag with a character that AWS refuses', { tags: { team: 'a;b' } }, 'has a character that AWS refuses'],
    ['a policy with a principal', { policy: { Statement: { ...allow, Principal: '*' } } }, 'Principal'],
    [
      'a policy that sets the end itself',
      { policy: { Statement: { ...allow, Condition: { DateLessThan: { 'AWS:currenttime': '2099-01-01T00:00:00Z' } } } } },
      'set by Halligan',
    ],
    [
      'an operator in another case',
      { policy: { Statement: { ...allow, Condition: { datelessthan: { 'aws:TokenIssueTime': '2099-01-01T00:00:00Z' } } } } },
      'where AWS writes DateLessThan',
    ],
    ['a statement without an action', { policy: { Statement: { Effect: 'Allow', Resource: '*' } } }, 'say Action or NotAction'],
    ['a statement with both kinds of resource', { policy: { Statement: { ...allow, NotResource: 'x' } } }, 'say Resource or NotResource'],
    ['a Sid with a space', { policy: { Statement: { ...allow, Sid: 'a b' } } }, 'letters and digits only'],
    [
      'a policy that is too long',
      { policy: { Statement: { ...allow, Resource: Array.from({ length: 60 }, (_, at) => `arn:aws:s3:::orders-of-region-${at}/*`) } } },
      'shorten it by',
    ],
  ])('%s', (_, more, fault) => {
    expect(messages(grantSchema.safeParse({ role: 'r', ...more })).join('\n')).toContain(fault);
  });
});

describe('the source identity', () => {
  test.each([
    ['Ana Test (per_0123)', 'per_0123'],
    ['Mallory (per_root) (per_0123)', 'per_0123'],
    ['Mallory (per_root) & friends', 'Mallory-per_root-friends'],
    ['é', 'unnamed'],
    ['x'.repeat(200), 'x'.repeat(64)],
  ])('%s', (person, expected) => {
    expect(sourceIdentityOf(person)).toBe(expected);
  });
});
