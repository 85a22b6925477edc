/** What Halligan's own identity needs in an account, and what each role must trust: printed for people, and applied as it is by the live suite. */
import type { PrintTarget } from '../../domain/provider.ts';
import { partitionOf, roleOf, type TargetConfig } from './config.ts';

/**
 * The identity policy for Halligan's own role in an account, as JSON, for all targets of that account. It names their roles
 * and nothing else; `GetPolicy…` only lets an approver see what the roles' managed policies say.
 */
export function awsPolicy(configs: readonly TargetConfig[]): string {
  const rolesOf = (some: readonly TargetConfig[]): string[] =>
    [...new Set(some.flatMap((config) => config.roles.map((text) => roleOf(config, text).arn)))].sort();
  const managed = configs.flatMap(({ region, account }) => [account, 'aws'].map((owner) => `arn:${partitionOf(region)}:iam::${owner}:policy/*`));
  const [roles, editable] = [rolesOf(configs), rolesOf(configs.filter(({ earlyEnd }) => earlyEnd))];
  return asText([
    { Sid: 'Issue', Effect: 'Allow', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'], Resource: roles },
    { Sid: 'Read', Effect: 'Allow', Action: ['iam:GetRole', 'iam:GetRolePolicy', 'iam:ListAttachedRolePolicies', 'iam:ListRolePolicies'], Resource: roles },
    { Sid: 'ReadManaged', Effect: 'Allow', Action: ['iam:GetPolicy', 'iam:GetPolicyVersion'], Resource: [...new Set(managed)] },
    ...(editable.length > 0 ? [{ Sid: 'EndEarly', Effect: 'Allow', Action: ['iam:DeleteRolePolicy', 'iam:PutRolePolicy'], Resource: editable }] : []),
  ]);
}

/**
 * The trust policy for each of the target's roles, as JSON. `identity` is the ARN of Halligan's own role. A session that is
 * not made by Halligan's rules (the id of a lease as its name, a source identity, our tag) is not trusted. Each action
 * has a statement of its own, because AWS does not know every condition key for every action.
 */
export function awsTrust(identity: string): string {
  const trusted = { Effect: 'Allow', Principal: { AWS: identity } };
  const named = { 'sts:SourceIdentity': '?*' };
  return asText([
    {
      Sid: 'Issue',
      ...trusted,
      Action: 'sts:AssumeRole',
      Condition: { StringLike: { 'sts:RoleSessionName': ['lse_*', 'hg_check'], ...named }, StringEquals: { 'aws:RequestTag/halligan': 'lease' } },
    },
    { Sid: 'NamePerson', ...trusted, Action: 'sts:SetSourceIdentity', Condition: { StringLike: named } },
    { Sid: 'Tag', ...trusted, Action: 'sts:TagSession', Condition: { StringEquals: { 'aws:RequestTag/halligan': 'lease' } } },
  ]);
}

const asText = (statements: object[]): string => JSON.stringify({ Version: '2012-10-17', Statement: statements }, null, 2);

const byAccount = (targets: readonly PrintTarget[]): TargetConfig[][] => [
  ...Map.groupBy(
    targets.map(({ config }) => config as TargetConfig),
    ({ account }) => account,
  ).values(),
];

/** What `halligan print` says for targets of this kind: one JSON document for each account. Where the config does not name Halligan's own role, `halligan` stands for it. */
export const prints: Readonly<Record<string, (targets: readonly PrintTarget[]) => string>> = {
  'aws-policy': (targets) => byAccount(targets).map(awsPolicy).join('\n'),
  'aws-trust': (targets) =>
    byAccount(targets)
      .flatMap((configs) => [...new Set(configs.map((config) => config.webIdentity?.role ?? roleOf(config, 'halligan').arn))])
      .map(awsTrust)
      .join('\n'),
};
