/** Deciding in Slack, on a real Halligan beside a double of Slack: one decision, told to everybody, whatever is pressed twice, late, or by somebody else. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { buttonsOf, channel, type SlackHouse, startSlackHouse, textIn, users } from './slack-house.ts';

let house: SlackHouse;
beforeAll(async () => {
  house = await startSlackHouse();
});
afterAll(() => house?.close());

const decided = async (requestId: string) => {
  const { rows } = await house.database.superuser.query<{ person: string; decision: string; via: string; reason: string }>(
    'SELECT p.subject AS person, d.decision, d.via, d.reason FROM decision d JOIN person p ON p.id = d.person_id WHERE request_id = $1 ORDER BY d.id',
    [requestId],
  );
  return rows;
};

test('a card in the channel and one to each approver; a press shows it all again; sending it decides, and every copy says so and loses its buttons', async () => {
  const { id } = await ask(house, { incident: 'INC-4312', reason: 'checkout errors' });
  const card = await house.card(id);
  const direct = await house.card(id, users.lead);
  for (const shown of [card, direct]) {
    expect(buttonsOf(shown.blocks)).toEqual(['approve', 'deny', 'open-page']);
    expect(textIn(shown.blocks)).toMatch(/On-call engineer asks to read the orders database for 10 minutes/);
    for (const part of ['checkout errors', 'INC-4312', 'Decide by']) expect(textIn(shown.blocks)).toContain(part);
    expect(shown.text).toContain('asks to read the orders database');
  }
  await house.press(users.lead, card, 'approve');
  const dialog = house.slack.dialogs.get(users.lead);
  expect(house.dialogText(users.lead)).toMatch(/checkout errors[\s\S]*You see version [0-9a-f]{4} [0-9a-f]{4}/);
  expect(dialog?.view['callback_id']).toBe('decide-approve');
  const sent = await house.slack.submit(users.lead, { reason: 'go ahead, read only' });
  expect(sent).toMatchObject({ status: 200 });
  expect(house.dialogText(users.lead)).toMatch(/^Approved until /);
  expect(await decided(id)).toEqual([{ person: 'lead', decision: 'approve', via: 'slack', reason: 'go ahead, read only' }]);
  await until('both copies are rewritten', () => [card, direct].every((one) => one.edits > 0 && !buttonsOf(one.blocks).includes('approve')));
  for (const shown of [card, direct])
    expect(textIn(shown.blocks)).toMatch(/Approved[\s\S]*Team lead approved: On-call engineer may read the orders database until/);
  const told = await until('the holder is told', () => house.slack.messagesIn(users.oncall)[0]);
  expect(textIn(told.blocks)).toMatch(/Team lead approved[\s\S]*go ahead, read only/);
  expect(await house.events('request.approved')).toContainEqual(
    expect.objectContaining({ request: id, actor: expect.objectContaining({ via: 'slack' }) as object }),
  );
  expect(house.slack.complaints).toEqual([]);
});

test('a double submit is one decision and one polite answer', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users.lead, card, 'approve');
  const dialog = structuredClone(house.slack.dialogs.get(users.lead)!);
  const answers = await Promise.all([
    house.slack.sendSubmission(users.lead, dialog, { reason: 'once' }),
    house.slack.sendSubmission(users.lead, dialog, { reason: 'once' }),
  ]);
  expect(answers.map((answer) => answer.status)).toEqual([200, 200]);
  const said = answers.map((answer) => textIn(JSON.parse(answer.text) as object));
  expect(said.filter((text) => text.includes('Approved until'))).toHaveLength(1);
  expect(said.filter((text) => text.includes('You sent this before'))).toHaveLength(1);
  expect(await decided(id)).toHaveLength(1);
});

test('two approvers at once: one decision, and the other one is told by whom and when', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await Promise.all([house.press(users.lead, card, 'approve'), house.press(users['lead-2'], card, 'deny')]);
  await Promise.all([house.slack.submit(users.lead, { reason: 'yes' }), house.slack.submit(users['lead-2'], { reason: 'no' })]);
  const outcomes = await decided(id);
  expect(outcomes).toHaveLength(1);
  const [first] = outcomes;
  const loser = first?.person === 'lead' ? users['lead-2'] : users.lead;
  expect(house.dialogText(loser)).toMatch(/It was already (approved|denied), by (Team lead|Second team lead) at \d{4}-\d\d-\d\d \d\d:\d\d UTC: “(yes|no)”/);
  expect((await house.events('decision.refused')).filter((event) => event.request === id)).toEqual([
    expect.objectContaining({ data: expect.objectContaining({ code: 'request_already_decided' }) as object }),
  ]);
});

test('two approvals are needed: the first counts, the card says how far it is, and the same person counts once', async () => {
  const { id } = await ask(house, { entitlement: 'orders-two' });
  const card = await house.card(id);
  await house.press(users.lead, card, 'approve');
  await house.slack.submit(users.lead, { reason: 'one' });
  expect(house.dialogText(users.lead)).toMatch(/Your approval counts\. More are needed/);
  await until('the card says how far it is', () => textIn(card.blocks).includes('1 of 2 approvals'));
  expect(buttonsOf(card.blocks)).toContain('approve');
  await house.press(users.lead, card, 'approve');
  expect(house.dialogText(users.lead)).toMatch(/You approved this already, at/);
  await house.press(users['lead-2'], card, 'approve');
  await house.slack.submit(users['lead-2'], { reason: 'two' });
  expect(house.dialogText(users['lead-2'])).toMatch(/^Approved until/);
  expect(await decided(id)).toHaveLength(2);
});

test('13 by a linked account too nobody decides on their own request: self_decision, witnessed', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users.oncall, card, 'approve');
  expect(house.dialogText(users.oncall)).toMatch(/You asked for this one yourself/);
  expect((await house.events('decision.refused')).filter((event) => event.request === id)).toEqual([
    expect.objectContaining({ data: expect.objectContaining({ code: 'self_decision' }) as object }),
  ]);
  expect(await decided(id)).toEqual([]);
});

test('an approver who lost the group between seeing and pressing, and between pressing and sending', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users['lead-2'], card, 'approve');
  await house.database.superuser.query(`UPDATE person SET groups = '{}' WHERE subject = 'lead-2'`);
  try {
    await house.slack.submit(users['lead-2'], { reason: 'I was one of them' });
    expect(house.dialogText(users['lead-2'])).toMatch(/You may not decide on this, or not any more/);
    await house.press(users['lead-2'], card, 'approve');
    expect(house.dialogText(users['lead-2'])).toMatch(/The policy does not count you for this one, or no longer/);
    expect((await house.events('decision.refused')).filter((event) => event.request === id).map((event) => event.data['code'])).toEqual([
      'not_found',
      'not_found',
    ]);
    expect(await decided(id)).toEqual([]);
  } finally {
    await house.database.superuser.query(`UPDATE person SET groups = '{leads}' WHERE subject = 'lead-2'`);
  }
});

test('withdrawn, lapsed and changed meanwhile: it says so, and nothing is decided', async () => {
  const gone = await ask(house);
  const goneCard = await house.card(gone.id);
  await house.press(users.lead, goneCard, 'approve');
  await (await house.apiAs('oncall')).post(`/requests/${gone.id}/withdraw`);
  await house.slack.submit(users.lead, { reason: 'too late' });
  expect(house.dialogText(users.lead)).toMatch(/On-call engineer withdrew it at/);

  const late = await ask(house);
  const lateCard = await house.card(late.id);
  await house.press(users.lead, lateCard, 'approve');
  await house.database.superuser.query(`UPDATE request SET lapses_at = now() - interval '1 second' WHERE id = $1`, [late.id]);
  await house.slack.submit(users.lead, { reason: 'too late' });
  expect(house.dialogText(users.lead)).toMatch(/It lapsed at .*nobody had decided by then/);

  const other = await ask(house);
  const otherCard = await house.card(other.id);
  await house.press(users.lead, otherCard, 'approve');
  await house.database.superuser.query(`UPDATE person SET name = 'Somebody renamed' WHERE subject = 'oncall'`);
  await house.slack.submit(users.lead, { reason: 'as I saw it' });
  await house.database.superuser.query(`UPDATE person SET name = 'On-call engineer' WHERE subject = 'oncall'`);
  expect(house.dialogText(users.lead)).toMatch(/no longer what would be granted/);
  const codes = async (id: string) => (await house.events('decision.refused')).filter((event) => event.request === id).map((event) => event.data['code']);
  expect([await codes(gone.id), await codes(late.id), await codes(other.id)]).toEqual([['request_already_decided'], ['request_lapsed'], ['seen_stale']]);
  for (const { id } of [gone, late, other]) expect(await decided(id)).toEqual([]);
});

test('a reason of spaces, and one of 5,000 characters: the field says so, nothing is decided, and the same dialog can be sent again', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users.lead, card, 'deny');
  for (const [reason, said] of [
    ['   \n ', 'This is empty.'],
    ['x'.repeat(5_000), 'This is longer than 2000 characters.'],
  ] as const) {
    await house.slack.submit(users.lead, { reason });
    expect(house.slack.dialogs.get(users.lead)?.errors).toEqual({ reason: said });
  }
  expect(await decided(id)).toEqual([]);
  await house.slack.submit(users.lead, { reason: 'not now' });
  expect(house.dialogText(users.lead)).toMatch(/^Denied\./);
  expect(await decided(id)).toEqual([{ person: 'lead', decision: 'deny', via: 'slack', reason: 'not now' }]);
});

test("an edited button, another person's dialog and a handle of another kind stand for nothing, and are witnessed", async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  for (const forged of [id, 'x'.repeat(43), '']) {
    await house.press(users.lead, card, 'approve', forged);
    expect(house.dialogText(users.lead)).toMatch(/This button stands for nothing/);
  }
  await house.press(users.lead, card, 'approve');
  const stolen = structuredClone(house.slack.dialogs.get(users.lead)!);
  const answer = await house.slack.sendSubmission(users['lead-2'], stolen, { reason: 'not mine' });
  expect(textIn(JSON.parse(answer.text) as object)).toMatch(/not one of yours/);
  expect(await decided(id)).toEqual([]);
  const refused = (await house.events('slack.refused')).filter((event) => event.data['reason'] === 'handle');
  expect(refused.map((event) => event.data['code'])).toEqual(['slack_refused', 'slack_refused']);
});

test('somebody whose account nobody linked is told privately how to link it, and nothing else', async () => {
  const { id } = await ask(house);
  const card = await house.card(id);
  await house.press(users.stranger, card, 'approve');
  expect(house.dialogText(users.stranger)).toMatch(/does not know who you are here[\s\S]*\/accounts[\s\S]*\/halligan link CODE/);
  expect(house.dialogText(users.stranger)).not.toContain('checkout');
  expect(await house.events('slack.refused')).toContainEqual(
    expect.objectContaining({ data: expect.objectContaining({ reason: 'unlinked', account: users.stranger }) as object }),
  );
  expect(house.slack.messagesIn(channel).every((message) => message.onlyFor === undefined)).toBe(true);
});
