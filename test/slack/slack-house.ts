/** A test house with a double of Slack beside it: people linked, routes set, and what tests do there in one line each. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inject } from 'vitest';
import { SlackDouble, type SlackDoubleOptions } from '../../src/demo/slack-double.ts';
import type { SlackMessage, SlackView } from '../../src/demo/slack-double-api.ts';
import { type Part, partsOf, textOf } from '../../src/demo/slack-double-limits.ts';
import { type House, type HouseOptions, startTestHouse, until } from '../support/house.ts';

export const channel = 'C0ONCALL';
export const users = {
  oncall: 'U0ONCALL',
  lead: 'U0LEAD',
  'lead-2': 'U0LEAD2',
  security: 'U0SECURITY',
  stranger: 'U0STRANGER',
  reviewer: 'U0REVIEWER',
} as const;
export type Linked = keyof typeof users;

export interface SlackHouse extends House {
  readonly slack: SlackDouble;
  /** Links the account of this person, as they would. They log in first. */
  link(person: Linked): Promise<void>;
  /** The card of a request in a channel or direct message; waits for it. */
  card(requestId: string, where?: string): Promise<SlackMessage>;
  /** The audit events of a type, newest last. */
  events(type: string): Promise<AuditLine[]>;
  /** Presses a button and waits for the dialog that it opens. */
  press(user: string, where: SlackMessage | SlackView, action: string, value?: string): Promise<void>;
  /** What the last dialog of this user says. */
  dialogText(user: string): string;
}

export interface AuditLine {
  readonly type: string;
  readonly actor: { readonly id?: string; readonly via?: string; readonly system?: string };
  readonly request?: string;
  readonly person?: string;
  readonly data: Record<string, unknown>;
}

export interface SlackHouseOptions extends HouseOptions {
  readonly double?: Partial<SlackDoubleOptions>;
  readonly linked?: readonly Linked[];
  /** A `slackDecision` for every entitlement; allow unless said. */
  readonly decision?: 'notify' | 'allow' | 'allow-with-step-up';
  readonly socket?: boolean;
  readonly notify?: string;
}

/** All text that a message or a dialog shows, as somebody reads it. */
export function textIn(blocks: unknown): string {
  const found: string[] = [];
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(walk);
    else if (typeof value === 'object' && value !== null) {
      const part = value as Part;
      if (typeof part['text'] === 'string') found.push(part['text']);
      for (const inner of Object.values(part)) walk(inner);
    }
  };
  walk(blocks);
  return found.join('\n');
}

/** The action ids of a message's or dialog's buttons. */
export const buttonsOf = (blocks: unknown): string[] =>
  partsOf(blocks)
    .flatMap((block) => partsOf(block['elements']))
    .flatMap((one) => (one['type'] === 'button' ? textOf(one['action_id']) : []));

export async function startSlackHouse(options: SlackHouseOptions = {}): Promise<SlackHouse> {
  const slack = await SlackDouble.start({
    users: Object.entries(users).map(([name, id]) => ({ id, name })),
    channels: [
      { id: channel, name: 'oncall' },
      { id: 'C0SECURITY', name: 'security' },
    ],
    ...options.double,
  });
  const secrets = join(inject('server').folder, `slack-${slack.url.split(':').at(-1)}`);
  await writeFile(`${secrets}-token`, slack.token, { mode: 0o600 });
  await writeFile(`${secrets}-signing`, slack.signingSecret, { mode: 0o600 });
  await writeFile(`${secrets}-app`, slack.appToken, { mode: 0o600 });
  const incoming = options.socket ? `appTokenFile: ${secrets}-app` : `signingSecretFile: ${secrets}-signing`;
  const tell = `slack: { workspace: ${slack.id}, apiUrl: '${slack.apiUrl}', botTokenFile: ${secrets}-token, ${incoming} }
${options.notify ?? `notify: [ { slack: [${channel}, approvers] } ]`}`;
  const decision = options.decision ?? 'allow';
  const house = await startTestHouse({
    ...options,
    tell,
    entitlements: options.entitlements ?? ((target) => entitlements(target.groupRole, decision)),
  });
  if (!options.socket) slack.deliverTo(`${house.url}/slack/events`);
  const made: SlackHouse = Object.assign(Object.create(house) as House, {
    slack,
    async link(person: Linked) {
      await house.tokenOf(person);
      const { id } = await house.actor(person);
      await house.database.superuser.query(`INSERT INTO alias (kind, workspace, account, person_id) VALUES ('slack', $1, $2, $3)`, [
        slack.id,
        users[person],
        id,
      ]);
    },
    card: (requestId: string, where: string = channel) =>
      until(`the card of ${requestId} in ${where}`, () =>
        slack.messagesIn(where).find((message) => message.threadTs === undefined && JSON.stringify(message.blocks).includes(requestId)),
      ),
    async events(type: string) {
      const { rows } = await house.database.superuser.query<{ line: string }>('SELECT line FROM audit_event WHERE type = $1 ORDER BY position', [type]);
      return rows.map((row) => JSON.parse(row.line) as AuditLine);
    },
    async press(user: string, where: SlackMessage | SlackView, action: string, value?: string) {
      const before = slack.dialogs.get(user)?.id;
      const { status } = await slack.press(user, where, action, value);
      if (status !== 200) throw new Error(`the press was answered with ${status}`);
      await until(`a dialog for ${user}`, () => slack.dialogs.get(user) && slack.dialogs.get(user)?.id !== before);
    },
    dialogText: (user: string) => textIn(slack.dialogs.get(user)?.view['blocks']),
    async close() {
      await house.close();
      await slack.close();
    },
  });
  for (const person of options.linked ?? ['oncall', 'lead', 'lead-2']) await made.link(person);
  return made;
}

const entitlements = (role: string, decision: string): string => `
  orders-readonly:
    opens: read the orders database
    target: orders-db
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 4h
    slackDecision: ${decision}
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
    review: { of: { groups: [reviewers] } }
  orders-two:
    opens: read the orders database, with two pairs of eyes
    target: orders-db
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 2 } ]
    maxDuration: 1h
    slackDecision: ${decision}`;
