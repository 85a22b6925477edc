/** Calls that claim to come from Slack, at a real Halligan: only what Slack signed over these bytes, lately, once, for our workspace and app, is listened to. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ask } from '../support/house-verbs.ts';
import { type SlackHouse, startSlackHouse, users } from './slack-house.ts';

let house: SlackHouse;
let payload: Record<string, unknown>;
beforeAll(async () => {
  house = await startSlackHouse();
  const { id } = await ask(house);
  const card = await house.card(id);
  const value = /"value":"([\w-]{43})"/.exec(JSON.stringify(card.blocks))?.[1];
  payload = {
    type: 'block_actions',
    team: { id: house.slack.id },
    user: { id: users.lead, team_id: house.slack.id },
    api_app_id: 'A0DOUBLE',
    trigger_id: 'none',
    channel: { id: card.channel },
    actions: [{ type: 'button', action_id: 'approve', block_id: 'b', value }],
  };
});
afterAll(() => house?.close());

const form = 'application/x-www-form-urlencoded';
const bodyOf = (value: object) => new URLSearchParams({ payload: JSON.stringify(value) }).toString();
async function send(body: string, headers: Record<string, string>, type = form): Promise<string> {
  const response = await fetch(`${house.url}/slack/events`, { method: 'POST', body, headers: { 'content-type': type, ...headers } });
  const text = await response.text();
  return `${response.status} ${text.startsWith('{') ? (JSON.parse(text) as { code?: string }).code : text}`.trim();
}
const refusedFor = async (reason: string) =>
  (await house.events('slack.refused')).filter((event) => event.data['reason'] === reason && event.data['code'] === 'slack_refused').length;
const now = () => Math.floor(Date.now() / 1_000);

test('what Slack signed is taken, once: the same bytes again are refused', async () => {
  const body = bodyOf(payload);
  const headers = house.slack.signed(body);
  expect(await send(body, headers)).toBe('200');
  expect(await send(body, headers)).toBe('401 slack_refused');
  expect(await refusedFor('replayed')).toBe(1);
  const { rows } = await house.database.superuser.query('SELECT FROM slack_call');
  expect(rows.length).toBeGreaterThan(0);
});

test.each([
  ['no signature', (body: string) => ({ ...house.slack.signed(body), 'x-slack-signature': '' })],
  ['a signature of another secret', (body: string) => house.slack.signed(body, now(), 'another secret')],
  ['a signature of another body', () => house.slack.signed('payload=%7B%7D')],
  ['the right signature with another time', (body: string) => ({ ...house.slack.signed(body), 'x-slack-request-timestamp': String(now() - 1) })],
  ['a time that is none', (body: string) => ({ ...house.slack.signed(body), 'x-slack-request-timestamp': '1e9' })],
  [
    'an older scheme',
    (body: string) => ({ ...house.slack.signed(body), 'x-slack-signature': house.slack.signed(body)['x-slack-signature']!.replace('v0', 'v1') }),
  ],
])('%s: 401 slack_refused', async (_name, headers) => {
  const body = bodyOf(payload);
  expect(await send(body, headers(body))).toBe('401 slack_refused');
  expect(await refusedFor('signature')).toBe(1);
});

test('the signature is over the bytes that came: the same body written differently is another body', async () => {
  const body = bodyOf(payload);
  const rewritten = bodyOf(
    JSON.parse(JSON.stringify(payload, Object.keys(payload).toReversed().concat('id', 'team_id', 'action_id', 'block_id', 'value'))) as object,
  );
  expect(rewritten).not.toBe(body);
  expect(await send(rewritten, house.slack.signed(body))).toBe('401 slack_refused');
  expect(await send(body.replaceAll('%22', '"'), house.slack.signed(body))).toBe('401 slack_refused');
});

test.each([-301, 301])('a call %i s away from now is stale', async (seconds) => {
  const body = bodyOf(payload);
  expect(await send(body, house.slack.signed(body, now() + seconds))).toBe('401 slack_refused');
  expect(await refusedFor('stale')).toBe(1);
});

test.each([
  ['another workspace', 'workspace', { team: { id: 'T0OTHER' } }],
  ['no workspace', 'workspace', { team: null }],
  ['a user of another workspace in a shared channel', 'workspace', { user: { id: users.lead, team_id: 'T0OTHER' } }],
  ['an installation for a whole organisation', 'workspace', { is_enterprise_install: true }],
  ['another app', 'app', { api_app_id: 'A0OTHER' }],
])('%s is refused, though it is signed', async (_name, reason, change) => {
  const before = house.slack.calls.length;
  const body = bodyOf({ ...payload, ...change });
  expect(await send(body, house.slack.signed(body))).toBe('401 slack_refused');
  expect(await refusedFor(reason)).toBe(1);
  expect(house.slack.calls.slice(before).filter((call) => call.method.startsWith('views.'))).toEqual([]);
});

test('a body that cannot be read, one that is too large, and other methods', async () => {
  const broken = 'payload=%7Bnot+json';
  expect(await send(broken, house.slack.signed(broken))).toBe('401 slack_refused');
  expect(await refusedFor('unreadable')).toBe(1);
  const large = `payload=${'x'.repeat(300_000)}`;
  expect(await send(large, house.slack.signed(large))).toMatch(/^413/);
  expect((await fetch(`${house.url}/slack/events`)).status).toBe(404);
});

test('an attacker cannot fill the log: of hundreds of refused calls one event stands for each reason and minute', async () => {
  const before = await house.database.superuser.query('SELECT FROM audit_event');
  const body = bodyOf(payload);
  for (let round = 0; round < 20; round++) await Promise.all(Array.from({ length: 10 }, () => send(body, house.slack.signed(body, now(), `wrong ${round}`))));
  const after = await house.database.superuser.query('SELECT FROM audit_event');
  expect((after.rowCount ?? 0) - (before.rowCount ?? 0)).toBeLessThanOrEqual(1);
});

test('Slack asks whether the address is ours, with a signature', async () => {
  const body = JSON.stringify({ type: 'url_verification', challenge: 'a challenge', token: 'old' });
  const response = await fetch(`${house.url}/slack/events`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...house.slack.signed(body) },
  });
  expect(await response.json()).toEqual({ challenge: 'a challenge' });
  expect(await send(body, house.slack.signed(body, now(), 'wrong'), 'application/json')).toBe('401 slack_refused');
});

test('what was accepted is forgotten when it is too old to be replayed', async () => {
  await house.database.superuser.query(`UPDATE slack_call SET at = now() - interval '11 minutes'`);
  const { sweepSlack } = await import('../../src/slack/handles.ts');
  await sweepSlack(house.running.ctx.db);
  expect((await house.database.superuser.query('SELECT FROM slack_call')).rowCount).toBe(0);
});
