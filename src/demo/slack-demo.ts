/** Slack in the demo: a double of it on this machine, two people who link their accounts the way people do, and the part of the story that is told there. */
import { loginAs } from './browserless.ts';
import { SlackDouble } from './slack-double.ts';
import type { SlackMessage } from './slack-double-api.ts';
import { deadlineMs, expect, sleep, type Tell } from './story-parts.ts';

const channel = 'C0ONCALL';
const users = { oncall: 'U0ONCALL', lead: 'U0LEAD', security: 'U0SECURITY' } as const;

export interface DemoSlack {
  readonly double: SlackDouble;
  /** For the config: how people are told. */
  readonly tell: string;
  /** What of the config comes by the environment. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Starts the double. People linked at another identity provider are other people, so each has a workspace of its own. */
export async function startDemoSlack(port: number, issuer: string): Promise<DemoSlack> {
  const double = await SlackDouble.start({
    port,
    workspace: `T0DEMO${new URL(issuer).port}`,
    users: Object.entries(users).map(([name, id]) => ({ id, name })),
    channels: [{ id: channel, name: 'oncall-access' }],
  });
  return {
    double,
    tell: `slack: { workspace: ${double.id}, apiUrl: '${double.apiUrl}', botTokenEnv: HALLIGAN_DEMO_SLACK_TOKEN, signingSecretEnv: HALLIGAN_DEMO_SLACK_SECRET }
notify: [ { slack: [${channel}, approvers] } ]
`,
    environment: { HALLIGAN_DEMO_SLACK_TOKEN: double.token, HALLIGAN_DEMO_SLACK_SECRET: double.signingSecret },
  };
}

/** oncall and lead link their accounts: a code from the page of their accounts, typed in Slack. Those who did it in an earlier demo stay linked. */
export async function linkPeople(double: SlackDouble, url: string): Promise<void> {
  double.deliverTo(`${url}/slack/events`);
  for (const person of ['oncall', 'lead'] as const) {
    const browser = await loginAs(url, person);
    const page = await (await browser.fetch('/accounts')).text();
    if (page.includes(double.id)) continue;
    const shown = await (await browser.submit('/accounts/link-code')).text();
    const code = /halligan link ([A-Z-]{14})/.exec(shown)?.[1];
    expect(code, `${person} got no code to link the Slack account`);
    await double.command(users[person], '/halligan', `link ${code}`);
    const said = JSON.stringify(double.messagesIn(channel, users[person]).at(-1)?.blocks ?? []);
    expect(said.includes('Linked'), `${person} could not link the Slack account: ${said}`);
  }
}

async function until<T>(what: string, find: () => T | undefined | false): Promise<T> {
  for (const end = Date.now() + deadlineMs; ; await sleep(50)) {
    const found = find();
    if (found !== undefined && found !== false) return found;
    expect(Date.now() < end, `not in Slack: ${what}`);
  }
}

const cardOf = (double: SlackDouble, requestId: string): Promise<SlackMessage> =>
  until('the card of the request', () =>
    double.messagesIn(channel).find((message) => message.threadTs === undefined && JSON.stringify(message.blocks).includes(requestId)),
  );

/** lead presses Approve on the card, reads the dialog, and sends it with a reason. */
export async function approveInSlack(double: SlackDouble, requestId: string, reason: string): Promise<void> {
  const card = await cardOf(double, requestId);
  await double.press(users.lead, card, 'approve');
  const dialog = await until('the dialog', () => double.dialogs.get(users.lead));
  expect(JSON.stringify(dialog.view['blocks']).includes('SELECT'), 'the dialog does not say what would be granted');
  await double.submit(users.lead, { reason });
  const said = JSON.stringify(double.dialogs.get(users.lead)?.view['blocks'] ?? []);
  expect(said.includes('Approved until'), `the approval was refused: ${said}`);
}

/** What Slack was told of both rounds, checked at the end of the story. */
export async function slackRound(double: SlackDouble, requests: { readonly approved: string; readonly glass: string }, tell: Tell): Promise<void> {
  await tell('slack', async () => {
    const card = await cardOf(double, requests.approved);
    await until('the card without buttons that decide', () => !JSON.stringify(card.blocks).includes('"approve"'));
    await until('that the login is gone', () =>
      double.messages.some((message) => message.threadTs === card.ts && message.text.startsWith('Gone from the target')),
    );
    const glass = await cardOf(double, requests.glass);
    expect(JSON.stringify(glass.blocks).includes('BREAK-GLASS'), 'the break-glass card does not say so');
    expect(
      double.calls.every((call) => call.error === undefined),
      `Slack would have refused a call: ${double.calls.find((call) => call.error !== undefined)?.error}`,
    );
    expect(double.complaints.length === 0, `Slack would complain: ${double.complaints.join('; ')}`);
    return `${double.messages.length} messages: the card lost its buttons when it was decided, its thread tells until the login is gone`;
  });
}
