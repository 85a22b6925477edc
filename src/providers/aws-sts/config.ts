/** What the config says about an AWS account and about what an entitlement opens there, and what of it is refused before AWS is asked. */
import { z } from 'zod';
import { longestPlainPolicy, policySchema, sessionPolicy } from './session-policy.ts';

/** One role, whichever way the config wrote it. */
export interface Role {
  readonly arn: string;
  /** Without its path: what IAM's calls take. */
  readonly name: string;
  readonly account: string;
}

const segment = '[A-Za-z0-9_+=,.@-]{1,64}';
const roleForm = new RegExp(`^(?:arn:(aws[a-z-]*):iam::(\\d{12}):role/)?((?:${segment}/){0,16})(${segment})$`);
const parts = (text: string): RegExpExecArray | null => {
  const found = roleForm.exec(text);
  return found?.[3]?.split('/').some((one) => one === '.' || one === '..') ? null : found;
};

const roleSchema = z
  .string()
  .max(512)
  .refine((text) => parts(text) !== null, 'is not a role: write its ARN, or its path and name as in ops/orders-ops')
  .describe('a role: its ARN, or its path and name');

/** The partition that a region belongs to (AWS General Reference, "Amazon Resource Names"). */
export function partitionOf(region: string): string {
  if (region.startsWith('cn-')) return 'aws-cn';
  if (region.startsWith('us-gov-')) return 'aws-us-gov';
  return 'aws';
}

/** The role that `text`, which has passed `roleSchema`, means for this target. */
export function roleOf(config: Pick<TargetConfig, 'account' | 'region'>, text: string): Role {
  const [, partition, account, path = '', name = ''] = parts(text) ?? [];
  const owner = account ?? config.account;
  return { arn: `arn:${partition ?? partitionOf(config.region)}:iam::${owner}:role/${path}${name}`, name, account: owner };
}

const isLoopback = (host: string): boolean => host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
const endpoint = z
  .url({ protocol: /^https?$/ })
  .refine((text) => !URL.canParse(text) || new URL(text).protocol === 'https:' || isLoopback(new URL(text).hostname), 'must be https, except on loopback')
  .refine((text) => !URL.canParse(text) || new URL(text).username === '', 'must not hold a user or a password');

/** The role names under which Identity Center keeps what it made; IAM refuses to edit them. */
const isReserved = (text: string): boolean => /(^|\/)aws-reserved\//.test(text);

export const targetSchema = z
  .strictObject({
    account: z
      .string('is the account number as text: put it into quotes')
      .regex(/^\d{12}$/, 'is an account number of twelve digits, in quotes')
      .describe('the account in which the roles are'),
    region: z
      .string()
      .regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'is a region such as eu-central-1')
      .describe('whose STS issues, and what holders are told'),
    roles: z.array(roleSchema).min(1).max(50).describe('every role that may be handed out here; leave one in until its last lease is over'),
    earlyEnd: z.boolean().default(true).describe('false: the roles cannot be edited (Identity Center), so a lease ends at its end and no earlier'),
    propagationSeconds: z.int().min(1).max(300).default(15).describe('how long AWS may take until a change of a role is felt everywhere'),
    allowStaticKeys: z.boolean().default(false).describe("lets Halligan's own access be an access key that never ends"),
    webIdentity: z
      .strictObject({ role: z.string().max(512).regex(roleForm, 'is the ARN of a role'), tokenFile: z.string().min(1) })
      .optional()
      .describe("Halligan's own role, taken with a token from a file that is read again each time"),
    endpoint: endpoint.optional().describe('another address of STS'),
    iamEndpoint: endpoint.optional().describe('another address of IAM'),
  })
  .superRefine((block, ctx) => {
    for (const [at, text] of block.roles.entries()) {
      const account = parts(text)?.[2];
      if (account !== undefined && account !== block.account)
        ctx.addIssue({ code: 'custom', path: ['roles', at], message: `is a role of the account ${account}, and this target is ${block.account}` });
      if (isReserved(text) && block.earlyEnd)
        ctx.addIssue({
          code: 'custom',
          path: ['earlyEnd'],
          message: 'must be false: roles under aws-reserved/ cannot be edited, so nothing there can be ended early',
        });
    }
    if (block.webIdentity && !block.webIdentity.role.startsWith('arn:'))
      ctx.addIssue({ code: 'custom', path: ['webIdentity', 'role'], message: 'must be a whole ARN' });
  });
export type TargetConfig = z.infer<typeof targetSchema>;

/** Session tags (STS API Reference, "Tag"): 128 and 256 characters; `aws:` is Amazon's and `halligan` ours. */
const tagText = /^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u;
const tags = z
  .record(
    z
      .string()
      .min(1)
      .max(128, 'is longer than the 128 characters that AWS allows for the name of a tag')
      .regex(tagText, 'has a character that AWS refuses in a tag')
      .refine((name) => !/^(aws:|halligan)/i.test(name), 'begins with a word that is not free to use'),
    z.string().max(256, 'is longer than the 256 characters that AWS allows for the value of a tag').regex(tagText, 'has a character that AWS refuses in a tag'),
  )
  .refine((all) => Object.keys(all).length <= 40, 'are more than 40');

export const grantSchema = z
  .strictObject({
    role: roleSchema,
    policy: policySchema.optional().describe('what of the role is given; left out: all of it'),
    tags: tags.optional().describe('session tags, for policies that look at them'),
    persistence: z
      .enum(['refused', 'allowed'])
      .default('refused')
      .describe('whether a holder may make access that outlives the grant: users, keys, policies, other sessions'),
  })
  .superRefine((grant, ctx) => {
    const length = sessionPolicy(grant, new Date(0)).length;
    if (length > longestPlainPolicy)
      ctx.addIssue({
        code: 'custom',
        path: ['policy'],
        message: `makes a session policy of ${length} characters with what Halligan adds, and AWS takes ${longestPlainPolicy}: shorten it by ${length - longestPlainPolicy}`,
      });
  });
export type Grant = z.infer<typeof grantSchema>;
