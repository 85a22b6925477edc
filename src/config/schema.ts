/** The form of the config file. Blocks are strict, secrets come by reference, durations are written as people write them. */
import { z } from 'zod';
import { duration } from './duration.ts';
import { redisSchema } from './redis.ts';
import { routeSchema, tellSchema } from './tell.ts';

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'a name has lower-case letters, digits and dashes, at most 63, and starts with a letter or digit');

const people = z
  .strictObject({
    groups: z.array(z.string().min(1)).default([]).describe('Groups of the identity provider.'),
    people: z.array(z.string().min(1)).default([]).describe('Subjects (the sub claim) of the identity provider.'),
  })
  .transform(({ groups, people: subjects }) => ({ groups, subjects }));

const approvalRule = z.strictObject({
  of: people,
  count: z.int().min(1).max(20).default(1).describe('How many distinct people of these must approve.'),
});

export const entitlementSchema = z.strictObject({
  opens: z.string().min(1).max(200).describe('What it opens, in words that finish the sentence "asks to …".'),
  target: name,
  grant: z.record(z.string(), z.unknown()).describe("What the target's provider asks for."),
  owner: z.string().min(1).max(100).describe('Whom to ask about this entitlement.'),
  eligible: people,
  approval: z.array(approvalRule).max(8),
  maxDuration: duration,
  decideWithin: duration.prefault('30m').describe('How long a request waits before it lapses; 30m unless set.'),
  breakGlass: z.strictObject({ eligible: people, maxDuration: duration }).optional(),
  review: z.strictObject({ of: people.optional(), within: duration.prefault('2d') }).prefault({}),
  stepUp: z
    .strictObject({
      maxAge: duration.describe('The longest since the person last proved who they are at the identity provider.'),
      acr: z
        .string()
        .regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,200}$/, 'must be one word of visible ASCII without quotes: that is how it is sent')
        .optional()
        .describe('The class of proof that the provider must name (its acr claim).'),
    })
    .optional()
    .describe('How fresh a login must be to ask for it, to decide on it and to break its glass.'),
  slackDecision: z.enum(['notify', 'allow', 'allow-with-step-up']).optional().describe('What Slack may do about a request; notify unless set.'),
  notify: routeSchema.optional().describe('Whom to tell of a request, step by step; notify at the top of the file unless set.'),
});

/** `host:port`. */
export const listenSchema = z
  .string()
  .refine(
    (text) => /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$/.test(text) && Number(text.slice(text.lastIndexOf(':') + 1)) <= 65_535,
    'say host:port, as in 127.0.0.1:8300',
  );
const url = (schemes: string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && schemes.includes(new URL(text).protocol),
      `must be a URL that starts with ${schemes.map((scheme) => `${scheme}//`).join(' or ')}`,
    );

export const configSchema = z.strictObject({
  server: z.strictObject({
    url: url(['https:', 'http:']).describe('The address people use. http only on loopback.'),
    listen: listenSchema.default('127.0.0.1:8300'),
    instance: z
      .string()
      .regex(/^[\x21-\x7e]{1,100}$/, 'must be one word of at most 100 visible ASCII characters')
      .optional()
      .describe('The name of this process, where the host name does not tell it from others.'),
    trustProxy: z.int().min(0).max(8).default(0).describe('How many proxies stand in front.'),
  }),
  database: z.strictObject({
    url: url(['postgres:', 'postgresql:']).describe('Without a password: that comes from passwordFile or passwordEnv.'),
    passwordFile: z.string().optional(),
    passwordEnv: z.string().optional(),
    migration: z
      .strictObject({ url: url(['postgres:', 'postgresql:']), passwordFile: z.string().optional(), passwordEnv: z.string().optional() })
      .optional()
      .describe('The role that owns the tables; used by halligan migrate only.'),
    maxConnections: z.int().min(2).max(200).default(20),
  }),
  login: z.strictObject({
    issuer: url(['https:', 'http:']),
    clientId: z.string().min(1),
    clientSecretFile: z.string().optional(),
    clientSecretEnv: z.string().optional(),
    groupsClaim: z.string().min(1).default('groups'),
    nameClaim: z.string().min(1).default('name'),
    scopes: z.array(z.string()).default(['openid', 'profile']),
    emailClaim: z.string().min(1).default('email').describe('Where mail for a person goes. It is never used to tell who somebody is.'),
    groupsMaxAge: duration.prefault('15m').describe('A decision or break-glass that rests on groups read longer ago reads them again first.'),
  }),
  audit: z.strictObject({
    signingKeyFile: z.string().min(1),
    checkpoints: z.strictObject({ directory: z.string().min(1) }),
  }),
  roles: z
    .strictObject({ auditors: people.prefault({}), admins: people.prefault({}) })
    .prefault({})
    .describe('Who may read the whole log, and who may end any grant.'),
  ...redisSchema,
  ...tellSchema,
  limits: z.strictObject({ pendingPerPerson: z.int().min(1).max(1_000).default(20) }).prefault({}),
  retention: z
    .strictObject({
      requests: duration
        .refine((seconds) => seconds >= 30 * 86_400, 'what people asked for is kept for 30d at least')
        .optional()
        .describe('How long a request is kept after all of it is over; for ever unless set. The audit log is not touched by it.'),
    })
    .prefault({}),
  metrics: z
    .strictObject({ listen: listenSchema.default('127.0.0.1:9464').describe('Where Prometheus scrapes /metrics. It asks for no login: keep others away.') })
    .optional()
    .describe('Metrics of each process; none unless this block is there.'),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info') }).prefault({}),
  targets: z.record(name, z.looseObject({ kind: z.string().min(1) })),
  entitlements: z.record(name, entitlementSchema),
});

export type RawConfig = z.output<typeof configSchema>;
