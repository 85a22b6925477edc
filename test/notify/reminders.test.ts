/** Ten and two minutes before the end: to whom, when, and when not. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { DeliveryFault } from '../../src/notify/channel.ts';
import { ask } from '../support/house-verbs.ts';
import { startToldHouse, type ToldHouse } from './told-house.ts';

let told: ToldHouse;
beforeAll(async () => {
  told = await startToldHouse();
  await told.reach('oncall', { email: 'oncall@example.com', slack: 'U0ONCALL' });
});
afterAll(() => told?.close());
beforeEach(() => {
  told.email.fault = undefined;
});

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

describe('reminders', () => {
  const plannedOf = (request: string) =>
    told.query<{ before: number }>(
      `SELECT extract(epoch FROM g.ends_at - n.due_at)::int AS before FROM notice n JOIN access_grant g ON g.request_id = n.request_id
        WHERE n.request_id = $1 AND n.type = 'grant.ends-soon' AND n.spread_at IS NULL ORDER BY 1`,
      request,
    );
  const granted = async (duration: string) => {
    const request = await ask(told.house, { duration });
    const grant = await approve(request);
    await told.tell();
    told.news(request.id);
    return { request: request.id, grant };
  };

  test.each([
    ['90s', []],
    ['2m', []],
    ['5m', [120]],
    ['10m', [120]],
    ['30m', [120, 600]],
  ])('a grant of %s has them %j seconds before its end', async (duration, expected) => {
    const { request } = await granted(duration);
    expect((await plannedOf(request)).map((row) => row.before)).toEqual(expected);
  });

  test('go to the holder at their time; a moved end moves them; an ended grant has none', async () => {
    const { request, grant } = await granted('30m');
    await due(request);
    await told.tell();
    // Too early, because the end is far: they wait for their time again.
    expect(told.news(request)).toEqual([]);
    expect((await plannedOf(request)).map((row) => row.before)).toEqual([120, 600]);
    await told.query(`UPDATE access_grant SET ends_at = now() + interval '9 minutes 50 seconds' WHERE id = $1`, grant);
    await told.query(`UPDATE notice SET due_at = now() WHERE request_id = $1 AND step = 600`, request);
    await told.tell();
    expect(told.news(request)).toEqual(['slack card U0ONCALL grant.ends-soon', 'email card oncall@example.com grant.ends-soon']);
    expect(told.email.sent.at(-1)?.headline).toBe('Ends in 10 minutes: read the orders database');
    await (await told.house.apiAs('oncall')).post(`/grants/${grant}/return`);
    await due(request);
    await told.tell();
    expect(told.news(request)).toEqual([]);
  });

  test('both late: the holder hears the nearer one only; and none that could not be sent before the end', async () => {
    const { request, grant } = await granted('30m');
    await told.query(`UPDATE access_grant SET ends_at = now() + interval '100 seconds' WHERE id = $1`, grant);
    await due(request);
    await told.tell();
    expect(told.news(request)).toHaveLength(2);
    expect(told.email.sent.at(-1)?.headline).toBe('Ends in 2 minutes: read the orders database');

    const other = await granted('5m');
    told.email.fault = () => {
      throw new DeliveryFault('away');
    };
    await told.query(`UPDATE access_grant SET ends_at = now() + interval '60 seconds' WHERE id = $1`, other.grant);
    await due(other.request);
    await told.tell();
    told.news(other.request);
    told.email.fault = undefined;
    await told.query(`UPDATE access_grant SET ends_at = now() WHERE id = $1`, other.grant);
    await told.query(`UPDATE delivery SET next_try_at = now() WHERE request_id = $1 AND state = 'waiting'`, other.request);
    await told.tell();
    expect(told.news(other.request)).toEqual([]);
    const [row] = await told.query<{ state: string }>(
      `SELECT d.state FROM delivery d JOIN notice n ON n.id = d.notice_id WHERE d.request_id = $1 AND d.channel = 'email' AND n.type = 'grant.ends-soon'`,
      other.request,
    );
    expect(row?.state).toBe('dropped');
  });
});
