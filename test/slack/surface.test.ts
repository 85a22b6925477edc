/** Linking, asking, ending and the home tab, on a real Halligan beside a double of Slack. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loginAs } from '../../src/demo/browserless.ts';
import { until } from '../support/house.ts';
import { ask, claimed, granted } from '../support/house-verbs.ts';
import { buttonsOf, channel, type SlackHouse, startSlackHouse, textIn, users } from './slack-house.ts';

let house: SlackHouse;
beforeAll(async () => {
  house = await startSlackHouse();
});
afterAll(() => house?.close());

const lastTo = (user: string) =>
  house.slack
    .messagesIn(channel, user)
    .filter((message) => message.onlyFor === user)
    .at(-1);
/** A code from the page of one's accounts. */
async function newCode(person: string): Promise<string> {
  const browser = await loginAs(house.url, person);
  const shown = await (await browser.submit('/accounts/link-code')).text();
  return /halligan link ([A-Z-]{14})/.exec(shown)?.[1] ?? shown;
}

test('a person links their account with a code from the web, once; the code is then void', async () => {
  const code = await newCode('security');
  expect(code).toMatch(/^[B-Z]{4}-[B-Z]{4}-[B-Z]{4}$/);
  await house.slack.command(users.security, '/halligan', `link ${code.toLowerCase()}`);
  expect(textIn(lastTo(users.security)?.blocks)).toMatch(/Linked: here you are Security engineer/);
  expect(await house.events('alias.linked')).toEqual([
    expect.objectContaining({ data: { kind: 'slack', workspace: house.slack.id, account: users.security } }),
  ]);
  await house.slack.command(users.stranger, '/halligan', `link ${code}`);
  expect(textIn(lastTo(users.stranger)?.blocks)).toMatch(/unknown, used, or older than ten minutes/);
  expect((await house.events('slack.refused')).filter((event) => event.data['code'] === 'link_code_invalid')).toHaveLength(1);
});

test('a code that is older than ten minutes; an account that is another’s; and codes that are guessed', async () => {
  const code = await newCode('reviewer');
  await house.database.superuser.query(`UPDATE link_code SET created_at = created_at - interval '11 minutes', expires_at = expires_at - interval '11 minutes'`);
  await house.slack.command(users.reviewer, '/halligan', `link ${code}`);
  expect(textIn(lastTo(users.reviewer)?.blocks)).toMatch(/unknown, used, or older/);
  await house.slack.command(users.lead, '/halligan', `link ${await newCode('reviewer')}`);
  expect(textIn(lastTo(users.lead)?.blocks)).toMatch(/already linked to somebody else/);
  expect(await house.events('access.refused')).toContainEqual(expect.objectContaining({ data: expect.objectContaining({ code: 'alias_taken' }) as object }));
  for (let guess = 0; guess < 12; guess++) await house.slack.command(users.reviewer, '/halligan', 'link BBBB-BBBB-BBBB');
  expect(textIn(lastTo(users.reviewer)?.blocks)).toMatch(/Too many calls/);
});

test('unlinked on the web: nothing from that account counts any more', async () => {
  const browser = await loginAs(house.url, 'lead-2');
  await browser.submit('/accounts/unlink', { workspace: house.slack.id, account: users['lead-2'] });
  const { id } = await ask(house);
  await house.press(users['lead-2'], await house.card(id), 'approve');
  expect(house.dialogText(users['lead-2'])).toMatch(/does not know who you are here/);
  expect(await house.events('alias.unlinked')).toHaveLength(1);
});

test('a terminal makes no code', async () => {
  const { newLinkCode } = await import('../../src/commands/link-alias.ts');
  for (const via of ['cli', 'device', 'slack'] as const)
    await expect(newLinkCode(house.running.ctx, await house.actor('lead', via))).rejects.toMatchObject({ code: 'device_may_not_decide' });
});

test('/halligan and the shortcut open the dialog; sending it asks, once, and says who can decide', async () => {
  for (const open of [() => house.slack.command(users.oncall, '/halligan'), () => house.slack.shortcut(users.oncall, 'halligan-ask')]) {
    const before = house.slack.dialogs.get(users.oncall)?.id;
    await open();
    await until('the dialog', () => house.slack.dialogs.get(users.oncall) && house.slack.dialogs.get(users.oncall)?.id !== before);
  }
  expect(buttonsOf(house.slack.dialogs.get(users.oncall)?.view['blocks'])).toEqual(['open-page']);
  const dialog = structuredClone(house.slack.dialogs.get(users.oncall)!);
  const typed = { entitlements: ['orders-readonly'], duration: '30m', reason: 'asked from Slack', incident: 'INC-9' };
  await house.slack.submit(users.oncall, typed);
  expect(house.dialogText(users.oncall)).toMatch(/Asked\. .*Team lead.* can decide, until/);
  const again = await house.slack.sendSubmission(users.oncall, dialog, typed);
  expect(textIn(JSON.parse(again.text) as object)).toMatch(/asked for once/);
  const { rows } = await house.database.superuser.query<{ duration_seconds: number; incident: string }>(
    `SELECT duration_seconds, incident FROM request WHERE reason = 'asked from Slack'`,
  );
  expect(rows).toEqual([{ duration_seconds: 1_800, incident: 'INC-9' }]);
});

test('what is wrong with what was typed stands at its field; what may not be asked for is refused by the same command', async () => {
  const open = async (user: string) => {
    const before = house.slack.dialogs.get(user)?.id;
    await house.slack.command(user, '/halligan');
    await until('the dialog', () => house.slack.dialogs.get(user) && house.slack.dialogs.get(user)?.id !== before);
  };
  await open(users.oncall);
  await house.slack.submit(users.oncall, { entitlements: ['orders-two'], duration: '2h', reason: 'long', incident: '' });
  expect(house.slack.dialogs.get(users.oncall)?.errors['duration']).toMatch(/The most for orders-two is 1h/);
  await house.slack.submit(users.oncall, { entitlements: ['orders-two'], duration: '1h', reason: '  ', incident: '' });
  expect(house.slack.dialogs.get(users.oncall)?.errors).toEqual({ reason: 'This is empty.' });
  await house.slack.submit(users.oncall, { entitlements: ['orders-two'], duration: '1h', reason: 'x', incident: '<!channel>' });
  expect(house.slack.dialogs.get(users.oncall)?.errors['incident']).toMatch(/is not the name of an incident/);
  await house.slack.submit(users.oncall, { entitlements: ['of-nobody'], duration: '1h', reason: 'x', incident: '' });
  expect(house.dialogText(users.oncall)).toMatch(/There is no entitlement/);
  await open(users.lead);
  expect(house.dialogText(users.lead)).toMatch(/No entitlement can be asked for by you/);
});

test('break-glass is told to everyone at once, with what to do if it is not legitimate; a button ends it; the thread says when it is gone', async () => {
  const oncall = await house.apiAs('oncall');
  const answer = await oncall.post<{ id: string; grant: { id: string } }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '5m',
    reason: 'everything is down',
    breakGlass: true,
  });
  const { id, grant } = answer.body;
  await claimed(house, grant.id);
  const card = await house.card(id);
  expect(textIn(card.blocks)).toMatch(/BREAK-GLASS[\s\S]*If this is not legitimate, end it now with the button below[\s\S]*everything is down/);
  expect(buttonsOf(card.blocks)).toEqual(['open-page', 'end']);
  await house.card(id, users.lead);
  await house.press(users.security, card, 'end');
  await house.slack.submit(users.security, { reason: 'not one of theirs' });
  expect(house.dialogText(users.security)).toMatch(/You may not end this one/);
  await house.press(users.lead, card, 'end');
  await house.slack.submit(users.lead, { reason: ' ' });
  expect(house.slack.dialogs.get(users.lead)?.errors['reason']).toBeDefined();
  await house.slack.submit(users.lead, { reason: 'nobody knows of it' });
  expect(house.dialogText(users.lead)).toMatch(/It is being ended now/);
  expect(await house.events('grant.revoked')).toContainEqual(
    expect.objectContaining({ grant: grant.id, actor: expect.objectContaining({ via: 'slack' }) as object }),
  );
  await until(
    'the thread says it is gone',
    () => house.slack.messages.some((message) => message.threadTs === card.ts && textIn(message.blocks).includes('Gone from the target')),
    15_000,
  );
  await until('the card says it is over', () => !buttonsOf(card.blocks).includes('end'));
  await house.press(users.lead, { ...card, blocks: [{ type: 'actions', elements: [{ type: 'button', action_id: 'end', value: 'x'.repeat(43) }] }] }, 'end');
  expect(house.dialogText(users.lead)).toMatch(/stands for nothing that is still open/);
});

test('its holder ends it by the same button, and that is a return', async () => {
  const { request, grant } = await granted(house);
  const card = await house.card(request);
  await until('the card has its button', () => buttonsOf(card.blocks).includes('end'));
  await house.press(users.oncall, card, 'end');
  await house.slack.submit(users.oncall, {});
  expect((await house.events('grant.returned')).map((event) => (event as unknown as { grant: string }).grant)).toContain(grant);
});

test('the home tab shows what is mine, what waits for me, and what I owe; to nobody else', async () => {
  const { grant } = await granted(house, { reason: 'for the home tab' });
  await ask(house, { reason: 'waits for a lead' });
  await house.slack.openHome(users.oncall);
  const mine = await until('the home', () => house.slack.homes.get(users.oncall));
  expect(textIn(mine.view['blocks'])).toMatch(/Your access[\s\S]*orders-readonly[\s\S]*until \d{4}/);
  await house.slack.openHome(users.lead);
  const leads = await until('the home', () => house.slack.homes.get(users.lead));
  expect(textIn(leads.view['blocks'])).toMatch(/Nothing is open for you[\s\S]*Waiting for your decision[\s\S]*waits for a lead/);
  await house.slack.openHome(users.stranger);
  expect(textIn((await until('the home', () => house.slack.homes.get(users.stranger))).view['blocks'])).toMatch(/does not know who you are/);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
});
