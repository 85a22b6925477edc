/** A Slack that is away, closed, or does not take our token; texts that try to be more than text; and no secret on any way to Slack. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterEach, expect, test } from 'vitest';
import { doctorCommand } from '../../src/doctor.ts';
import { until } from '../support/house.ts';
import { ask, claimed, endsIn } from '../support/house-verbs.ts';
import { buttonsOf, channel, type SlackHouse, type SlackHouseOptions, startSlackHouse, textIn, users } from './slack-house.ts';

let house: SlackHouse;
const start = async (options: SlackHouseOptions = {}): Promise<void> => {
  house = await startSlackHouse(options);
};
afterEach(() => house?.close());

interface Told {
  readonly address: string;
  readonly form: string;
  readonly state: string;
  readonly last_error: string | null;
}
const deliveriesOf = async (requestId: string): Promise<Told[]> =>
  (
    await house.database.superuser.query<Told>('SELECT address, form, state, last_error FROM delivery WHERE request_id = $1 ORDER BY notice_id, id', [
      requestId,
    ])
  ).rows;
const ready = async () => (await fetch(`${house.url}/readyz`)).status;

test('an archived channel, a bot that was removed and a person who left: each said by its place, the request waits for whoever is left', async () => {
  await start({ notify: `notify: [ { slack: [${channel}, C0SECURITY, C0NOWHERE, approvers] } ]` });
  house.slack.channels.get(channel)!.archived = true;
  house.slack.channels.get('C0SECURITY')!.botIsOut = true;
  house.slack.users.get(users['lead-2'])!.disabled = true;
  const { id } = await ask(house);
  const direct = await house.card(id, users.lead);
  await until('each place has its outcome', async () => (await deliveriesOf(id)).every((one) => one.state !== 'waiting'));
  expect((await deliveriesOf(id)).map(({ address, state, last_error }) => [address, state, last_error])).toEqual(
    expect.arrayContaining([
      [channel, 'failed', 'the channel is archived (is_archived)'],
      ['C0SECURITY', 'failed', 'Halligan is not in the channel: invite it there (not_in_channel)'],
      ['C0NOWHERE', 'failed', 'there is no such channel, or Halligan was not invited to it (channel_not_found)'],
      [users['lead-2'], 'failed', 'the account is deactivated (user_disabled)'],
      [users.lead, 'sent', null],
    ]),
  );
  await house.press(users.lead, direct, 'approve');
  await house.slack.submit(users.lead, { reason: 'still here' });
  expect(house.dialogText(users.lead)).toMatch(/^Approved until/);
  expect(await ready()).toBe(200);
});

test('a message that was deleted in Slack is not written again, and breaks nothing', async () => {
  await start({ notify: `notify: [ { slack: [${channel}] } ]` });
  const { id } = await ask(house);
  const card = await house.card(id);
  house.slack.messages.splice(house.slack.messages.indexOf(card), 1);
  await (await house.apiAs('oncall')).post(`/requests/${id}/withdraw`);
  const update = await until('the rewriting failed for good', async () =>
    (await deliveriesOf(id)).find((one) => one.form === 'update' && one.state === 'failed'),
  );
  expect(update.last_error).toBe('the message was deleted (message_not_found)');
});

test('a token that was revoked: one clear line in the log, ready all the same, the doctor says it, and everything goes out when it is mended', async () => {
  await start();
  house.slack.revoked = true;
  const { id } = await ask(house);
  await ask(house);
  await until('it is tried', async () => (await deliveriesOf(id)).some((one) => one.last_error?.includes('token_revoked')));
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const lines = house.logged.filter((line) => line.includes('token_revoked'));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('install the app again and put the new token where slack.botTokenFile points');
  expect(await ready()).toBe(200);
  const written: string[] = [];
  const write = process.stdout.write;
  process.stdout.write = ((text: string) => written.push(text) > 0) as typeof write;
  const code = await doctorCommand({ config: house.configFile, output: 'json' }).finally(() => {
    process.stdout.write = write;
  });
  expect(code).toBe(1);
  expect(written.join('')).toMatch(/"target": "slack"[\s\S]*token_revoked/);
  house.slack.token = 'xoxb-a-new-one';
  house.slack.revoked = false;
  await writeFile(await tokenFile(), house.slack.token);
  await house.card(id);
});
const tokenFile = async (): Promise<string> => /botTokenFile: ([^,}\s]+)/.exec(await readFile(house.configFile, 'utf8'))?.[1] ?? '';

test('Slack that refuses for the whole life of a break-glass grant: all else works, and the messages come late and once', async () => {
  await start();
  house.slack.faults.down = 'refuse';
  const oncall = await house.apiAs('oncall');
  const answer = await oncall.post<{ id: string; grant: { id: string } }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '5m',
    reason: 'all is dark',
    breakGlass: true,
  });
  expect(answer.status).toBe(201);
  const { id, grant } = answer.body;
  await claimed(house, grant.id);
  await endsIn(house, grant.id, 300);
  house.running.ctx.nudge();
  await until(
    'it ended on time',
    async () => (await house.database.superuser.query(`SELECT FROM access_grant WHERE id = $1 AND state = 'ended'`, [grant.id])).rowCount === 1,
    15_000,
  );
  expect(await ready()).toBe(200);
  expect(house.slack.messages).toEqual([]);
  house.slack.faults.down = undefined;
  await house.database.superuser.query(`UPDATE delivery SET next_try_at = now() WHERE state = 'waiting'`);
  const card = await house.card(id);
  await until('all of it is out', async () => (await deliveriesOf(id)).every((one) => one.state !== 'waiting'), 15_000);
  expect(textIn(card.blocks)).toMatch(/BREAK-GLASS, over/);
  expect(buttonsOf(card.blocks)).toEqual(['open-page']);
  for (const where of [channel, users.lead, users['lead-2']])
    expect(house.slack.messagesIn(where).filter((message) => message.threadTs === undefined)).toHaveLength(1);
  const thread = house.slack
    .messagesIn(channel)
    .filter((message) => message.threadTs === card.ts)
    .map((message) => textIn(message.blocks));
  expect(thread.filter((line) => line.includes('Gone from the target'))).toHaveLength(1);
  expect(new Set(thread).size).toBe(thread.length);
}, 60_000);

test('Slack that hangs holds up nobody: the request is decided on the web within its time', async () => {
  await start();
  house.slack.faults.down = 'hang';
  const { id, seen } = await ask(house);
  const began = Date.now();
  const lead = await house.apiAs('lead');
  expect((await lead.post(`/requests/${id}/decisions`, { decision: 'approve', reason: 'on the web', seen })).status).toBe(200);
  expect(Date.now() - began).toBeLessThan(2_000);
  expect(await ready()).toBe(200);
  house.slack.faults.down = undefined;
}, 60_000);

test('Slack that is so slow that no dialog can be opened: the press is acknowledged at once, and a word in private says that nothing was done', async () => {
  await start({ notify: `notify: [ { slack: [${channel}] } ]` });
  const { id } = await ask(house);
  const card = await house.card(id);
  house.slack.faults.slowMs = 3_200;
  const { status, ms } = await house.slack.press(users.lead, card, 'approve');
  expect(status).toBe(200);
  expect(ms).toBeLessThan(1_000);
  const word = await until('the word', () => house.slack.messagesIn(channel, users.lead).find((message) => message.onlyFor === users.lead), 15_000);
  expect(textIn(word.blocks)).toMatch(/The dialog could not be opened.*Nothing was done/);
  expect(house.slack.calls.some((call) => call.error === 'expired_trigger_id')).toBe(true);
  house.slack.faults.slowMs = undefined;
}, 60_000);

test('a database that is slow: the dialog is answered within three seconds, and rewritten when it is decided', async () => {
  await start({ notify: `notify: [ { slack: [${channel}] } ]` });
  const { id } = await ask(house);
  await house.press(users.lead, await house.card(id), 'approve');
  const client = await house.database.superuser.connect();
  await client.query('BEGIN');
  await client.query('SELECT FROM request WHERE id = $1 FOR UPDATE', [id]);
  const sent = house.slack.submit(users.lead, { reason: 'slowly' });
  await new Promise((resolve) => setTimeout(resolve, 2_600));
  expect((await sent).ms).toBeLessThan(3_000);
  expect(house.dialogText(users.lead)).toMatch(/still at it/);
  await client.query('COMMIT');
  client.release();
  await until('the dialog says what came of it', () => /^Approved until/.test(house.dialogText(users.lead)));
}, 60_000);

test('an answer that was lost after it was done: two copies at most, and whichever is pressed, one decision', async () => {
  await start({ notify: `notify: [ { slack: [${channel}] } ]` });
  house.slack.faults.loseAnswers = 1;
  const { id } = await ask(house);
  await until('it is sent', async () => (await deliveriesOf(id)).some((one) => one.state === 'sent'));
  const copies = house.slack.messagesIn(channel);
  expect(copies).toHaveLength(2);
  for (const copy of copies) await house.press(users.lead, copy, 'approve');
  await house.slack.submit(users.lead, { reason: 'go' });
  const [first] = copies;
  await house.press(users['lead-2'], first!, 'approve');
  expect(house.dialogText(users['lead-2'])).toMatch(/It was already approved, by Team lead/);
});

test('a burst is sent at the pace that Slack takes, without one call that it refuses, and loses none', async () => {
  await start({ notify: `notify: [ { slack: [${channel}] } ]` });
  const api = await house.apiAs('oncall');
  const ids = await Promise.all(
    Array.from(
      { length: 12 },
      async (_, index) =>
        (await api.post<{ id: string }>('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: `burst ${index}` })).body.id,
    ),
  );
  await until('all are out', () => house.slack.messagesIn(channel).length === ids.length, 30_000);
  for (const id of ids) expect(house.slack.messagesIn(channel).filter((message) => JSON.stringify(message.blocks).includes(id))).toHaveLength(1);
  expect(house.slack.calls.filter((call) => call.error === 'ratelimited')).toEqual([]);
  expect(house.logged.filter((line) => line.includes('notify_failing'))).toEqual([]);
}, 60_000);

const hostile = '*bold* <!channel> <@U0LEAD> <https://evil.example|click> `code` @here :boom: & > quote\n*Who*  Somebody else \u202Egnp.exe\u202C \u200b';
test('a reason that tries to be markup, a mention, a link or another fact is text in every message, dialog and fallback', async () => {
  await start();
  const { id } = await ask(house, { reason: hostile });
  const card = await house.card(id);
  await house.press(users.lead, card, 'deny');
  await house.slack.submit(users.lead, { reason: hostile });
  await until('the holder is told', () => house.slack.messagesIn(users.oncall)[0]);
  await house.slack.openHome(users.lead);
  await until('the card is rewritten', () => textIn(card.blocks).includes('Denied'));
  const bodies = house.slack.calls.flatMap((call) => {
    const { view, blocks, text } = call.args as { view?: unknown; blocks?: unknown; text?: unknown };
    return [view, blocks].filter((part) => part !== undefined).map((part) => ({ part: typeof part === 'string' ? (JSON.parse(part) as unknown) : part, text }));
  });
  expect(bodies.length).toBeGreaterThan(4);
  let seen = 0;
  for (const { part, text } of bodies) {
    expect(JSON.stringify(part)).not.toContain('"mrkdwn"');
    if (typeof text === 'string') expect(text).not.toMatch(/[<>\u202e\u200b]/);
    for (const shown of JSON.stringify(part).match(/"text":"[^"]*bold[^"]*"/g) ?? []) {
      seen += 1;
      expect(shown).toContain('[U+202E]');
      expect(shown).not.toMatch(/[\u202e\u200b]/);
    }
  }
  expect(seen).toBeGreaterThan(2);
  const posts = house.slack.calls.filter((call) => call.method.startsWith('chat.'));
  for (const { args } of posts)
    expect(args).toMatchObject({
      mrkdwn: expect.anything() as unknown,
      parse: 'none',
      link_names: expect.anything() as unknown,
      unfurl_links: expect.anything() as unknown,
    });
  expect(house.slack.calls.filter((call) => call.error)).toEqual([]);
});

test('the longest that can be written is cut with a note, and Slack takes it', async () => {
  await start();
  const { id } = await ask(house, { reason: '😀'.repeat(1_000) });
  const card = await house.card(id);
  expect(textIn(card.blocks)).toContain('(its page shows all)');
  await house.press(users.lead, card, 'approve');
  await house.slack.submit(users.lead, { reason: 'é'.repeat(2_000) });
  await until('the card is rewritten', () => textIn(card.blocks).includes('Approved'));
  await until('all of it is out', async () => (await deliveriesOf(id)).every((one) => one.state === 'sent' || one.state === 'dropped'));
  expect(house.slack.calls.filter((call) => call.error)).toEqual([]);
  expect(house.slack.complaints).toEqual([]);
});

test('22 no secret on any way to Slack: not the password that was claimed, not a token, in no encoding', async () => {
  await start();
  const { id } = await ask(house);
  await house.press(users.lead, await house.card(id), 'approve');
  await house.slack.submit(users.lead, { reason: 'go' });
  const request = await (await house.apiAs('oncall')).get<{ grant: { id: string } }>(`/requests/${id}`);
  const issued = await claimed(house, request.body.grant.id);
  await (await house.apiAs('oncall')).post(`/grants/${request.body.grant.id}/return`);
  await until('the thread says it is gone', () => house.slack.messages.some((message) => textIn(message.blocks).includes('Gone from the target')), 15_000);
  const secrets = [issued.secret.password, await house.tokenOf('oncall'), await house.tokenOf('lead'), house.slack.signingSecret];
  const all = house.slack.calls.map((call) => decodeURIComponent(call.body.replaceAll('+', ' ')) + call.body).join('\n') + house.logged.join('\n');
  for (const secret of secrets)
    for (const form of [secret, Buffer.from(secret).toString('base64'), Buffer.from(secret).toString('hex'), encodeURIComponent(secret)])
      expect(all).not.toContain(form);
  expect(house.logged.join('\n')).not.toContain(house.slack.token);
});
