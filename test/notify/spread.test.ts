/** What becomes a message, for whom, and when. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { DeliveryFault } from '../../src/notify/channel.ts';
import { until } from '../support/house.ts';
import { ask, claimed } from '../support/house-verbs.ts';
import { startToldHouse, step, type ToldHouse } from './told-house.ts';

let told: ToldHouse;
beforeAll(async () => {
  told = await startToldHouse();
  await told.reach('oncall', { email: 'oncall@example.com', slack: 'U0ONCALL' });
  await told.reach('lead', { slack: 'U0LEAD', email: 'lead@example.com' });
  await told.reach('lead-2', {});
  await told.reach('lead-oncall', { slack: 'U0BOTH' });
  await told.reach('security', { slack: 'U0SEC' });
  await told.reach('reviewer', { slack: 'U0REV', email: 'reviewer@example.com' });
});
afterAll(() => told?.close());
beforeEach(async () => {
  told.routes.clear();
  for (const channel of [told.slack, told.email, told.webhook]) channel.fault = undefined;
  await told.tell();
  told.news('');
});

const channel = 'C0ORDERS';
const routes = (...steps: Parameters<typeof step>[0][]) => told.routes.set('orders-readonly', steps.map(step));
const failedOf = (request: string) =>
  told.query<{ address: string; last_error: string }>(
    `SELECT address, last_error FROM delivery WHERE request_id = $1 AND state = 'failed' ORDER BY address`,
    request,
  );
const approve = async (request: { id: string; seen: string }): Promise<string> => {
  const answer = await (await told.house.apiAs('lead')).post<{ grant: { id: string } | null }>(`/requests/${request.id}/decisions`, {
    decision: 'approve',
    reason: 'go on',
    seen: request.seen,
  });
  expect(answer.status, answer.text).toBe(200);
  return answer.body.grant?.id ?? '';
};
/** As if this much time had passed for what waits for its time. */
const due = (request: string) => told.query('UPDATE notice SET due_at = now() WHERE request_id = $1 AND spread_at IS NULL', request);

describe('a request', () => {
  test('reaches each place of the ladders of all its entitlements once; those who cannot be reached are named with why', async () => {
    routes({ slack: [channel, 'approvers'], webhooks: ['pager'] });
    told.routes.set('orders-both', [step({ slack: [channel, 'approvers'], email: ['approvers', 'team@example.com'] })]);
    const answer = await (await told.house.apiAs('oncall')).post<{ id: string }>('/requests', {
      entitlements: ['orders-readonly', 'orders-both'],
      duration: '10m',
      reason: 'r',
    });
    const { id } = answer.body;
    await told.tell();
    expect(told.news(id).sort()).toEqual(
      [
        `slack card ${channel} request.submitted`,
        'slack card U0BOTH request.submitted',
        'slack card U0LEAD request.submitted',
        'slack card U0SEC request.submitted',
        'email card lead@example.com request.submitted',
        'email card team@example.com request.submitted',
        'webhook card pager request.submitted',
      ].sort(),
    );
    const [lead2, both, security] = await Promise.all(['lead-2', 'lead-oncall', 'security'].map(async (one) => (await told.house.actor(one)).id));
    const failed = await failedOf(id);
    expect(failed).toHaveLength(4);
    expect(failed).toEqual(
      expect.arrayContaining([
        { address: lead2, last_error: 'has linked no Slack account' },
        ...[lead2, both, security].map((address) => ({ address, last_error: 'the identity provider gives no mail address' })),
      ]),
    );
  });

  test('its requester is not asked, even as one of the approvers', async () => {
    routes({ slack: ['approvers'] });
    const { id } = await ask(told.house, { by: 'lead-oncall' });
    await told.tell();
    expect(told.news(id)).toEqual(['slack card U0LEAD request.submitted']);
  });

  test('a ladder: at once, then each step at its time, to nobody twice', async () => {
    routes({ slack: ['U0LEAD'] }, { afterSeconds: 300, slack: ['U0LEAD', channel] }, { afterSeconds: 600, email: ['boss@example.com'] });
    const { id } = await ask(told.house);
    await told.tell();
    expect(told.news(id)).toEqual(['slack card U0LEAD request.submitted']);
    const later = await told.query<{ step: number; after: number }>(
      `SELECT n.step, extract(epoch FROM n.due_at - r.created_at)::int AS after FROM notice n JOIN request r ON r.id = n.request_id WHERE r.id = $1 AND n.step > 0 ORDER BY 1`,
      id,
    );
    expect(later).toEqual([
      { step: 1, after: 300 },
      { step: 2, after: 600 },
    ]);
    await told.query('UPDATE notice SET due_at = now() WHERE request_id = $1 AND step = 1', id);
    await told.tell();
    expect(told.news(id)).toEqual([`slack card ${channel} request.submitted`]);
    await due(id);
    await told.tell();
    expect(told.news(id)).toEqual(['email card boss@example.com request.submitted']);
  });

  test.each(['approve', 'deny', 'withdraw', 'lapse'])('the ladder stops after: %s', async (how) => {
    routes({ slack: ['U0LEAD'] }, { afterSeconds: 300, slack: [channel], webhooks: ['pager'] });
    const request = await ask(told.house);
    await told.tell();
    if (how === 'approve') await approve(request);
    if (how === 'deny')
      await (await told.house.apiAs('lead')).post(`/requests/${request.id}/decisions`, { decision: 'deny', reason: 'no', seen: request.seen });
    if (how === 'withdraw') await (await told.house.apiAs('oncall')).post(`/requests/${request.id}/withdraw`);
    if (how === 'lapse') await told.query(`UPDATE request SET lapses_at = now() WHERE id = $1`, request.id);
    await told.tell();
    told.news(request.id);
    await due(request.id);
    await told.tell();
    expect(told.news(request.id).filter((one) => one.endsWith('request.submitted'))).toEqual([]);
    expect(await told.query(`SELECT FROM notice WHERE request_id = $1 AND type = 'request.submitted' AND spread_at IS NULL`, request.id)).toEqual([]);
  });

  test('without a ladder nobody is asked, and its holder still hears of the decision', async () => {
    const request = await ask(told.house);
    await told.tell();
    expect(told.news(request.id)).toEqual([]);
    await approve(request);
    await told.tell();
    expect(told.news(request.id)).toEqual(['slack card U0ONCALL request.approved', 'email card oncall@example.com request.approved']);
  });
});

describe('invariant 17: break-glass', () => {
  test('tells every step at once, and whoever owes the review; its notice stands in the transaction that opened it', async () => {
    routes({ slack: ['approvers'] }, { afterSeconds: 300, slack: [channel] }, { afterSeconds: 86_400, email: ['boss@example.com'], webhooks: ['pager'] });
    const answer = await (await told.house.apiAs('oncall')).post<{ id: string }>('/requests', {
      entitlements: ['orders-readonly'],
      duration: '10m',
      reason: 'r',
      breakGlass: true,
    });
    const { id } = answer.body;
    const [one] = await told.query<{ same: boolean }>(
      `SELECT n.xmin = g.xmin AND n.xmin = e.xmin AS same FROM notice n JOIN access_grant g ON g.request_id = n.request_id JOIN audit_event e ON e.request_id = n.request_id AND e.type = n.type
        WHERE n.request_id = $1 AND n.type = 'request.glass-broken'`,
      id,
    );
    expect(one).toEqual({ same: true });
    await told.tell();
    expect(
      told
        .news(id)
        .filter((news) => news.endsWith('request.glass-broken'))
        .sort(),
    ).toEqual(
      [
        'slack card U0BOTH request.glass-broken',
        'slack card U0LEAD request.glass-broken',
        'slack card U0REV request.glass-broken',
        `slack card ${channel} request.glass-broken`,
        'email card boss@example.com request.glass-broken',
        'webhook card pager request.glass-broken',
      ].sort(),
    );
    expect(told.slack.sent.at(-1)?.headline).toMatch(
      /^(BREAK-GLASS: On-call engineer may read the orders database for 10 minutes, without approval|The use must)/,
    );
  });
});

describe('what follows', () => {
  test('cards are written again, a channel’s thread goes on, webhooks hear everything, the holder hears what others did', async () => {
    routes({ slack: [channel, 'U0LEAD'], email: ['team@example.com'], webhooks: ['pager'] });
    const request = await ask(told.house);
    await told.tell();
    told.news(request.id);
    const grant = await approve(request);
    await told.tell();
    expect(told.news(request.id).sort()).toEqual(
      [
        `slack update ${channel} request.approved`,
        'slack update U0LEAD request.approved',
        'slack card U0ONCALL request.approved',
        'email card oncall@example.com request.approved',
        'webhook card pager request.approved',
      ].sort(),
    );
    await claimed(told.house, grant);
    await told.tell();
    expect(told.news(request.id).sort()).toEqual([`slack reply ${channel} lease.revealed`, 'webhook card pager lease.revealed'].sort());
    await (await told.house.apiAs('lead')).post(`/grants/${grant}/revoke`, { reason: 'enough' });
    await told.tell();
    expect(told.news(request.id).sort()).toEqual(
      [
        `slack update ${channel} grant.revoked`,
        `slack reply ${channel} grant.revoked`,
        'slack update U0LEAD grant.revoked',
        'slack card U0ONCALL grant.revoked',
        'email card oncall@example.com grant.revoked',
        'webhook card pager grant.revoked',
      ].sort(),
    );
    expect(told.email.sent.at(-1)?.headline).toBe('Ended early: On-call engineer to read the orders database (enough)');
    // What follows knows what the other side called the card.
    expect(told.slack.sent.filter((one) => one.request === request.id && one.form !== 'card').every((one) => one.cardRef !== null)).toBe(true);
  });

  test('a holder who gives back is not told of it', async () => {
    routes({ email: ['team@example.com'] });
    const request = await ask(told.house);
    const grant = await approve(request);
    await told.tell();
    told.news(request.id);
    await (await told.house.apiAs('oncall')).post(`/grants/${grant}/return`);
    await told.tell();
    expect(told.news(request.id)).toEqual([]);
  });

  test('what is spread twice is one message; a notice that cannot be spread keeps nobody waiting and is tried again', async () => {
    routes({ slack: [channel] });
    const broken = await ask(told.house);
    const sound = await ask(told.house);
    const policy = await told.query<{ policy: object }>('SELECT policy FROM request WHERE id = $1', broken.id);
    told.routes.set('orders-readonly', [step({ slack: ['approvers', channel] })]);
    await told.query(`UPDATE request SET policy = '5' WHERE id = $1`, broken.id);
    await told.tell();
    expect(told.news(sound.id)).toContain(`slack card ${channel} request.submitted`);
    expect(told.house.logged.join('')).toContain('notice_not_spread');
    await told.query(`UPDATE request SET policy = $2 WHERE id = $1`, broken.id, JSON.stringify(policy[0]!.policy));
    await due(broken.id);
    await told.tell();
    await told.query('UPDATE notice SET spread_at = NULL WHERE request_id = $1', broken.id);
    await told.tell();
    expect(told.slack.sent.filter((one) => one.request === broken.id && one.address === channel)).toHaveLength(1);
  });
});

describe('order and truth', () => {
  test('what follows waits for its card; a rewriting that a later one overtakes is dropped, replies keep their order', async () => {
    routes({ slack: [channel] });
    told.slack.fault = () => {
      throw new DeliveryFault('Slack is away');
    };
    const request = await ask(told.house);
    await told.tell();
    const grant = await approve(request);
    await claimed(told.house, grant);
    await (await told.house.apiAs('lead')).post(`/grants/${grant}/revoke`, { reason: 'enough' });
    await told.tell();
    expect(told.news(request.id).filter((one) => one.startsWith('slack'))).toEqual([]);
    told.slack.fault = undefined;
    await told.query('UPDATE delivery SET next_try_at = now() WHERE request_id = $1 AND state = $2', request.id, 'waiting');
    await told.tell();
    const news = told.news(request.id).filter((one) => one.includes(channel));
    expect(news).toEqual([
      `slack card ${channel} request.submitted`,
      `slack reply ${channel} lease.revealed`,
      expect.stringMatching(/^slack (update|reply) C0ORDERS grant\.revoked$/),
      expect.stringMatching(/^slack (update|reply) C0ORDERS grant\.revoked$/),
    ]);
    // It came late, and says what is true now.
    const card = told.slack.sent.find((one) => one.request === request.id && one.form === 'card' && one.address === channel);
    expect(card?.headline).toBe('On-call engineer asks to read the orders database for 10 minutes (since then: approved, and over)');
  });

  test('two notifiers at once send each message once', async () => {
    routes({ slack: [channel, 'U0LEAD'], email: ['team@example.com'], webhooks: ['pager'] });
    told.slack.fault = () => new Promise((resolve) => setTimeout(resolve, 20));
    const others = [told.another(), told.another()];
    const ids: string[] = [];
    for (let n = 0; n < 12; n++) {
      ids.push((await ask(told.house)).id);
      await Promise.all(others.map((other) => other.run()));
    }
    await until('all is sent', async () => {
      await Promise.all(others.map((other) => other.run()));
      return (await told.query(`SELECT FROM delivery WHERE state = 'waiting' AND request_id = ANY ($1)`, ids)).length === 0;
    });
    await Promise.all(others.map((other) => other.stop()));
    for (const id of ids) {
      const messages = [told.slack, told.email, told.webhook].flatMap((one) => one.sent.filter((message) => message.request === id));
      expect(messages.map((one) => `${one.channel} ${one.address}`).sort()).toEqual([
        'email team@example.com',
        `slack ${channel}`,
        'slack U0LEAD',
        'webhook pager',
      ]);
    }
  });
});
