/** How people are told, as the config file says it: each fault in words, with its line. */
import { describe, expect, test } from 'vitest';
import { tellsAnybody } from '../../src/config/tell.ts';
import { changed, read, saidOf, sample } from './sample.ts';

const slack = `slack:\n  workspace: T0123ABCD\n  botTokenFile: secrets/slack-bot\n  signingSecretEnv: SLACK_SIGNING_SECRET\n`;
const email = `email:\n  host: smtp.example.com\n  from: halligan@example.com\n`;
const webhooks = `webhooks:\n  pager:\n    url: https://hooks.example.com/halligan\n    secretFile: secrets/pager\n`;
/** The sample has 37 lines; what is added begins on line 38. */
const lines = sample.trimEnd().split('\n').length;
const withBlocks = (...blocks: string[]): string => sample + blocks.join('');

describe('a config that is right', () => {
  test('says nothing about telling: nobody is told', async () => {
    const { tell } = await read(sample);
    expect(tell).toMatchObject({ slack: undefined, email: undefined });
    expect(tell.webhooks.size).toBe(0);
    expect(tell.routes.get('orders-readonly')).toEqual([]);
    expect(tellsAnybody(tell)).toBe(false);
  });

  test('has its defaults, its secrets by reference, and a ladder for each entitlement: its own, or that of the top', async () => {
    const { tell } = await read(
      withBlocks(slack, email, webhooks, 'notify:\n  - slack: [C0123ABCD, approvers]\n  - { after: 5m, email: [approvers], webhooks: [pager] }\n'),
    );
    expect(tell.slack).toEqual({
      workspace: 'T0123ABCD',
      apiUrl: 'https://slack.com/api/',
      botToken: { file: '/etc/halligan/secrets/slack-bot' },
      signingSecret: { env: 'SLACK_SIGNING_SECRET' },
      appToken: undefined,
    });
    expect(tell.email).toEqual({ host: 'smtp.example.com', port: 587, tls: 'starttls', from: 'halligan@example.com', user: undefined, password: undefined });
    expect(tell.webhooks.get('pager')).toEqual({
      name: 'pager',
      url: 'https://hooks.example.com/halligan',
      allowPrivate: false,
      secret: { file: '/etc/halligan/secrets/pager' },
    });
    expect(tell.routes.get('orders-readonly')).toEqual([
      { afterSeconds: 0, slack: ['C0123ABCD', 'approvers'], email: [], webhooks: [] },
      { afterSeconds: 300, slack: [], email: ['approvers'], webhooks: ['pager'] },
    ]);
    const own = await read(
      `${withBlocks(email).replace('    maxDuration: 4h', '    maxDuration: 4h\n    notify: [ { email: [orders@example.com] } ]')}notify: [ { email: [all@example.com] } ]\n`,
    );
    expect(own.tell.routes.get('orders-readonly')).toMatchObject([{ email: ['orders@example.com'] }]);
    const none = await read(
      `${withBlocks(email).replace('    maxDuration: 4h', '    maxDuration: 4h\n    notify: []')}notify: [ { email: [all@example.com] } ]\n`,
    );
    expect(none.tell.routes.get('orders-readonly')).toEqual([]);
    expect(tellsAnybody(none.tell)).toBe(true);
  });

  test.each([
    ['mail without TLS on this machine', email.replace('smtp.example.com', '127.0.0.1\n  tls: none')],
    ['Slack by Socket Mode', slack.replace('signingSecretEnv: SLACK_SIGNING_SECRET', 'appTokenFile: secrets/app')],
    ['a webhook over http in this network', webhooks.replace('https://hooks.example.com/halligan', 'http://10.0.0.7/hook\n    allowPrivate: true')],
  ])('%s', async (_, block) => {
    expect(await saidOf(withBlocks(block))).toEqual([]);
  });
});

describe('refused, each in words', () => {
  test.each<[string, string, string]>([
    ['a workspace that is none', slack.replace('T0123ABCD', 'my-team'), `${lines + 2} slack.workspace: is not the id of a workspace: one looks like T0123ABCD`],
    [
      'Slack without a bot token',
      slack.replace('  botTokenFile: secrets/slack-bot\n', ''),
      `${lines + 1} slack.botTokenFile: is missing: say botTokenFile or botTokenEnv`,
    ],
    [
      'Slack without a way in',
      slack.replace('  signingSecretEnv: SLACK_SIGNING_SECRET\n', ''),
      `${lines + 1} slack.signingSecretFile: is missing: say signingSecretFile (calls from Slack come in over HTTP) or appTokenFile (Socket Mode)`,
    ],
    ['Slack over http', `${slack}  apiUrl: http://slack.example.com/api/\n`, `${lines + 5} slack.apiUrl: must be https, except on loopback`],
    ['a token from two places', `${slack}  botTokenEnv: X\n`, `${lines + 5} slack.botTokenEnv: say botTokenFile or botTokenEnv, one of the two`],
    ['a token in the file', slack.replace('botTokenFile: secrets/slack-bot', 'botToken: xoxb-1'), 'slack'],
    ['mail without TLS elsewhere', `${email}  tls: none\n`, `${lines + 4} email.tls: must not be none, except for a server on this machine`],
    ['a user without a password', `${email}  user: halligan\n`, `${lines + 1} email.passwordFile: is missing: say passwordFile or passwordEnv for this user`],
    ['a sender with a name', email.replace('halligan@example.com', '"Halligan <h@example.com>"'), 'is not a mail address'],
    ['a sender that stands for people', email.replace('halligan@example.com', 'approvers'), `${lines + 3} email.from: must be one mail address`],
    ['a webhook over http', webhooks.replace('https:', 'http:'), `${lines + 3} webhooks.pager.url: must be https, except with allowPrivate`],
    [
      'a webhook with a password in its address',
      webhooks.replace('hooks.example.com', 'a:b@hooks.example.com'),
      `${lines + 3} webhooks.pager.url: must not hold a user or a password`,
    ],
    [
      'a webhook that is no address',
      webhooks.replace('https://hooks.example.com/halligan', 'hooks'),
      `${lines + 3} webhooks.pager.url: must be a URL that starts with https://`,
    ],
    [
      'a webhook without its secret',
      webhooks.replace('    secretFile: secrets/pager\n', ''),
      `${lines + 2} webhooks.pager.secretFile: is missing: say secretFile or secretEnv`,
    ],
    ['a secret from two places', `${webhooks}    secretEnv: X\n`, `${lines + 5} webhooks.pager.secretEnv: say secretFile or secretEnv, one of the two`],
    [
      'Slack in a ladder and no Slack',
      'notify:\n  - slack: [C0123ABCD]\n',
      `${lines + 2} notify.0.slack: there is no slack block that says how to reach Slack`,
    ],
    [
      'mail in a ladder and no mail',
      'notify:\n  - email: [a@example.com]\n',
      `${lines + 2} notify.0.email: there is no email block that says how mail is sent`,
    ],
    [
      'a webhook that is not there',
      `${webhooks}notify:\n  - webhooks: [pagr]\n`,
      `${lines + 6} notify.0.webhooks: there is no webhook "pagr"; did you mean "pager"?`,
    ],
    ['a channel by its name', `${slack}notify:\n  - slack: ['#orders']\n`, 'is not the id of a Slack channel or user: one looks like C0123ABCD'],
    ['an address that is none', `${email}notify:\n  - email: [nobody]\n`, 'is not a mail address: one looks like oncall@example.com, or say approvers'],
    ['two addresses in one', `${email}notify:\n  - email: ['a@example.com, b@example.com']\n`, 'is not a mail address'],
    ['a line break in an address', `${email}notify:\n  - email: ["a@example.com\\nBcc: b@example.com"]\n`, 'is not a mail address'],
    [
      'a bare number',
      `${email}notify:\n  - { after: 5, email: [a@example.com] }\n`,
      '5 is not a duration, because nobody can know its unit: say 5s, 5m or 1h30m',
    ],
    ['a place that there is not', 'notify:\n  - { sms: [x] }\n', 'notify.0.sms'],
    ['nine steps', `${email}notify: [${Array.from({ length: 9 }, () => '{ email: [a@example.com] }').join(', ')}]\n`, 'notify'],
  ])('%s', async (_, block, expected) => {
    const said = await saidOf(withBlocks(block));
    expect(said.join('\n')).toContain(expected);
    expect(said.join('\n')).not.toContain('xoxb-1');
  });

  test('a fault in the ladder of one entitlement is told with its own line', async () => {
    const text = changed(['    maxDuration: 4h', '    maxDuration: 4h\n    notify:\n      - email: [approvers]']);
    expect(await saidOf(text)).toEqual(['36 entitlements.orders-readonly.notify.0.email: there is no email block that says how mail is sent']);
  });
});
