/** The parts of the config that say how people are told: Slack, mail, webhooks, and the ladder of whom to tell when. */
import { z } from 'zod';
import { approvers, type RouteStep } from '../domain/notice.ts';
import { duration } from './duration.ts';
import { type Fault, nearest } from './faults.ts';
import { type SecretRef, secretRef } from './secrets.ts';

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'a name has lower-case letters, digits and dashes, at most 63');
const slackPlace = z
  .string()
  .regex(
    new RegExp(`^([CGUW][A-Z0-9]{2,20}|${approvers})$`),
    `is not the id of a Slack channel or user: one looks like C0123ABCD (open the channel's details), or say ${approvers}`,
  );
const mailPlace = z
  .string()
  .refine(
    (text) => text === approvers || /^[^\s@<>,;:"()[\]\\]{1,64}@[A-Za-z0-9.-]{1,190}$/.test(text),
    `is not a mail address: one looks like oncall@example.com, or say ${approvers}`,
  );

/** One step of a ladder, as people write it. */
export const routeSchema = z
  .array(
    z
      .strictObject({
        after: duration.optional().describe('How long after the request, if nobody has decided by then. Left out: at once.'),
        slack: z.array(slackPlace).max(20).default([]).describe(`Slack channels and users by id, and ${approvers} for each who may decide.`),
        email: z.array(mailPlace).max(20).default([]).describe(`Mail addresses, and ${approvers} for each who may decide.`),
        webhooks: z.array(name).max(20).default([]).describe('Names of webhooks.'),
      })
      .transform(({ after, ...places }): RouteStep => ({ afterSeconds: after ?? 0, ...places })),
  )
  .max(8);

const place = z.string().min(1).optional();

export const tellSchema = {
  slack: z
    .strictObject({
      workspace: z
        .string()
        .regex(/^[TE][A-Z0-9]{2,20}$/, 'is not the id of a workspace: one looks like T0123ABCD')
        .describe('The one workspace that is listened to.'),
      botTokenFile: place,
      botTokenEnv: place,
      signingSecretFile: place,
      signingSecretEnv: place,
      appTokenFile: place,
      appTokenEnv: place,
      apiUrl: z
        .url({ protocol: /^https?$/ })
        .default('https://slack.com/api/')
        .describe("Slack's Web API; another address only for tests."),
    })
    .optional(),
  email: z
    .strictObject({
      host: z.string().min(1),
      port: z.int().min(1).max(65_535).default(587),
      tls: z.enum(['starttls', 'implicit', 'none']).default('starttls').describe('none only for a server on this machine.'),
      user: z.string().min(1).optional(),
      passwordFile: place,
      passwordEnv: place,
      from: mailPlace.refine((text) => text !== approvers, 'must be one mail address'),
    })
    .optional(),
  webhooks: z
    .record(
      name,
      z.strictObject({
        url: z.url({ protocol: /^https?$/, error: 'must be a URL that starts with https://' }),
        secretFile: place,
        secretEnv: place,
        allowPrivate: z.boolean().default(false).describe('Lets the address be one of this network. Without it only public addresses are called.'),
      }),
    )
    .default({}),
  notify: routeSchema.default([]).describe('Whom to tell of requests, for entitlements that say nothing of their own.'),
};

export interface SlackConfig {
  readonly workspace: string;
  readonly apiUrl: string;
  readonly botToken: SecretRef;
  /** For calls from Slack over HTTP. */
  readonly signingSecret: SecretRef | undefined;
  /** For Socket Mode: Halligan calls Slack, and nothing comes in. */
  readonly appToken: SecretRef | undefined;
}

export interface EmailConfig {
  readonly host: string;
  readonly port: number;
  readonly tls: 'starttls' | 'implicit' | 'none';
  readonly from: string;
  readonly user: string | undefined;
  readonly password: SecretRef | undefined;
}

export interface WebhookConfig {
  readonly name: string;
  readonly url: string;
  readonly allowPrivate: boolean;
  /** `whsec_` and base64, as Standard Webhooks has it. */
  readonly secret: SecretRef;
}

/** How people are told, and the ladder of each entitlement. */
export interface TellConfig {
  readonly slack: SlackConfig | undefined;
  readonly email: EmailConfig | undefined;
  readonly webhooks: ReadonlyMap<string, WebhookConfig>;
  readonly routes: ReadonlyMap<string, readonly RouteStep[]>;
}

type RawTell = z.output<z.ZodObject<typeof tellSchema>>;

/** Whether any entitlement has somewhere to send anything. */
export const tellsAnybody = ({ routes, slack, email }: TellConfig): boolean =>
  slack !== undefined || email !== undefined || [...routes.values()].some((steps) => steps.length > 0);

/** From what the file says to what the house uses; notes what names something that is not there. `ladders`: by entitlement, undefined where it says nothing. */
export function readTell(raw: RawTell, ladders: ReadonlyMap<string, readonly RouteStep[] | undefined>, folder: string, fault: Fault): TellConfig {
  const needed = (path: readonly string[], block: object, secret: string): SecretRef => {
    const ref = secretRef(block, secret, folder);
    if (!ref) fault([...path, `${secret}File`], `is missing: say ${secret}File or ${secret}Env`);
    if (`${secret}File` in block && `${secret}Env` in block) fault([...path, `${secret}Env`], `say ${secret}File or ${secret}Env, one of the two`);
    return ref ?? { env: '' };
  };
  const { slack, email } = raw;
  const webhooks = new Map<string, WebhookConfig>();
  for (const [hook, block] of Object.entries(raw.webhooks)) {
    const { url, allowPrivate } = block;
    if (url.startsWith('http:') && !allowPrivate) fault(['webhooks', hook, 'url'], 'must be https, except with allowPrivate');
    if (new URL(url).username || new URL(url).password) fault(['webhooks', hook, 'url'], 'must not hold a user or a password');
    webhooks.set(hook, { name: hook, url, allowPrivate, secret: needed(['webhooks', hook], block, 'secret') });
  }
  const routes = new Map<string, readonly RouteStep[]>();
  const check = (path: readonly string[], steps: readonly RouteStep[]): void =>
    steps.forEach((step, index) => {
      const at = [...path, String(index)];
      if (step.slack.length > 0 && !slack) fault([...at, 'slack'], 'there is no slack block that says how to reach Slack');
      if (step.email.length > 0 && !email) fault([...at, 'email'], 'there is no email block that says how mail is sent');
      for (const hook of step.webhooks)
        if (!webhooks.has(hook)) fault([...at, 'webhooks'], `there is no webhook ${JSON.stringify(hook)}${nearest(hook, [...webhooks.keys()])}`);
    });
  check(['notify'], raw.notify);
  for (const [entitlement, own] of ladders) {
    if (own) check(['entitlements', entitlement, 'notify'], own);
    routes.set(entitlement, own ?? raw.notify);
  }
  return {
    slack: slack && readSlack(slack, needed, folder, fault),
    email: email && readEmail(email, folder, fault),
    webhooks,
    routes,
  };
}

function readSlack(
  slack: NonNullable<RawTell['slack']>,
  needed: (path: readonly string[], block: object, secret: string) => SecretRef,
  folder: string,
  fault: Fault,
): SlackConfig {
  const signingSecret = secretRef(slack, 'signingSecret', folder);
  const appToken = secretRef(slack, 'appToken', folder);
  if (!signingSecret && !appToken)
    fault(['slack', 'signingSecretFile'], 'is missing: say signingSecretFile (calls from Slack come in over HTTP) or appTokenFile (Socket Mode)');
  if (slack.apiUrl.startsWith('http:') && !isLoopback(new URL(slack.apiUrl))) fault(['slack', 'apiUrl'], 'must be https, except on loopback');
  return { workspace: slack.workspace, apiUrl: slack.apiUrl, botToken: needed(['slack'], slack, 'botToken'), signingSecret, appToken };
}

function readEmail(email: NonNullable<RawTell['email']>, folder: string, fault: Fault): EmailConfig {
  const password = secretRef(email, 'password', folder);
  if (email.tls === 'none' && !['127.0.0.1', 'localhost', '::1'].includes(email.host))
    fault(['email', 'tls'], 'must not be none, except for a server on this machine');
  if (email.user !== undefined && !password) fault(['email', 'passwordFile'], 'is missing: say passwordFile or passwordEnv for this user');
  const { host, port, tls, from, user } = email;
  return { host, port, tls, from, user, password };
}

const isLoopback = (url: URL): boolean => ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname);
