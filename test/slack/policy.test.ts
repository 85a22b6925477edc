/** What Slack may decide, by the entitlement's word: only tell; decide; or decide after a fresh login, with what was typed kept. */
import { afterEach, expect, test } from 'vitest';
import { loginAs } from '../../src/demo/browserless.ts';
import type { Entitlement } from '../../src/domain/entitlement.ts';
import { until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { buttonsOf, type SlackHouse, type SlackHouseOptions, startSlackHouse, textIn, users } from './slack-house.ts';

let house: SlackHouse;
const start = async (options: SlackHouseOptions): Promise<void> => {
  house = await startSlackHouse(options);
};
afterEach(() => house?.close());
const refusals = async (id: string) => (await house.events('decision.refused')).filter((event) => event.request === id).map((event) => event.data['code']);
const decisions = async (id: string) => (await house.database.superuser.query('SELECT FROM decision WHERE request_id = $1', [id])).rowCount;

test('notify: the card has no button that decides, and a forged press decides nothing', async () => {
  await start({ decision: 'notify' });
  const { id } = await ask(house);
  const card = await house.card(id);
  expect(buttonsOf(card.blocks)).toEqual(['open-page']);
  expect(textIn(card.blocks)).toContain('It is decided on its page, not in Slack.');
  const { newHandle } = await import('../../src/slack/handles.ts');
  const value = await newHandle(house.running.ctx.db, { purpose: 'decide', requestId: id, seconds: 60 });
  await house.press(users.lead, { ...card, blocks: [{ type: 'actions', elements: [{ type: 'button', action_id: 'approve', value }] }] }, 'approve');
  expect(house.dialogText(users.lead)).toMatch(/The policy does not let a request for this be decided in Slack/);
  expect(buttonsOf(house.slack.dialogs.get(users.lead)?.view['blocks'])).toEqual(['open-page']);
  expect(await refusals(id)).toEqual(['slack_may_not_decide']);
});

test('the policy was changed to notify between pressing and sending', async () => {
  await start({ decision: 'allow' });
  const { id } = await ask(house);
  await house.press(users.lead, await house.card(id), 'approve');
  const loaded = house.running.ctx.policy.entitlements as Map<string, Entitlement>;
  loaded.set('orders-readonly', { ...loaded.get('orders-readonly')!, slackDecision: 'notify' });
  await house.slack.submit(users.lead, { reason: 'as I saw it' });
  expect(house.dialogText(users.lead)).toMatch(/no longer what would be granted|not let a request for this be decided in Slack/);
  expect(await decisions(id)).toBe(0);
  expect(await refusals(id)).toHaveLength(1);
});

test('allow-with-step-up: the dialog leads through a fresh login; what was typed stands there; then the decision counts', async () => {
  await start({ decision: 'allow-with-step-up' });
  const { id } = await ask(house);
  await house.press(users.lead, await house.card(id), 'approve');
  expect(house.dialogText(users.lead)).toMatch(/So Halligan leads you there next/);
  await house.slack.submit(users.lead, { reason: 'typed in Slack' });
  expect(house.dialogText(users.lead)).toMatch(/Nothing is decided yet\. Your reason is kept for 15 minutes/);
  expect(await refusals(id)).toEqual(['step_up_required']);
  expect(await decisions(id)).toBe(0);
  const url = new URL(/"url":"([^"]+)"/.exec(JSON.stringify(house.slack.dialogs.get(users.lead)?.view['blocks']))?.[1] ?? '');
  expect(url.origin).toBe(house.url);
  expect(url.pathname).toBe('/login');
  const returnTo = url.searchParams.get('returnTo') ?? '';
  const other = await (await (await loginAs(house.url, 'lead-2')).fetch(returnTo)).text();
  expect(other).not.toContain('typed in Slack');
  const page = await (await (await loginAs(house.url, 'lead')).fetch(returnTo)).text();
  expect(page).toContain('typed in Slack');
  expect(page).toContain('Nothing is decided yet.');
});

test('groups that were read too long ago: the same way on, and nothing is decided', async () => {
  await start({ decision: 'allow' });
  const { id } = await ask(house);
  await house.press(users.lead, await house.card(id), 'deny');
  await house.database.superuser.query(`UPDATE person SET groups_read_at = now() - interval '16 minutes' WHERE subject = 'lead'`);
  await house.slack.submit(users.lead, { reason: 'typed in Slack' });
  expect(house.dialogText(users.lead)).toMatch(/groups were last read.*Nothing is decided yet/);
  expect(await refusals(id)).toEqual(['groups_stale']);
});

test('Socket Mode, through the real receiver: a press decides, an envelope that comes again does nothing, and the socket is opened again when it breaks', async () => {
  await start({ socket: true });
  await until('the socket is open', () => house.slack.socket.connected());
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users.lead, card, 'approve');
  const sent = await house.slack.submit(users.lead, { reason: 'by the socket' });
  expect(sent.status).toBe(200);
  expect(house.dialogText(users.lead)).toMatch(/^Approved until/);
  expect((await fetch(`${house.url}/slack/events`, { method: 'POST', body: '{}' })).status).toBeGreaterThanOrEqual(400);
  const body = {
    type: 'shortcut',
    callback_id: 'halligan-ask',
    team: { id: house.slack.id },
    user: { id: users.oncall, team_id: house.slack.id },
    api_app_id: 'A0DOUBLE',
    trigger_id: 'none',
  };
  await house.slack.socket.envelope('interactive', body, 'one-envelope');
  await house.slack.socket.envelope('interactive', body, 'one-envelope');
  await until('it is counted', async () => (await house.events('slack.refused')).some((event) => event.data['reason'] === 'replayed'));
  await house.slack.socket.envelope('interactive', { ...body, team: { id: 'T0OTHER' } });
  await until('it is refused', async () => (await house.events('slack.refused')).some((event) => event.data['reason'] === 'workspace'));
  house.slack.socket.close();
  await until('the socket is gone', () => !house.slack.socket.connected());
  await until('the socket is open again', () => house.slack.socket.connected());
}, 60_000);
