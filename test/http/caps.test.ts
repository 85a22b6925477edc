/** The cap on what waits: 429 for more of it, while ending access has no cap. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse } from '../support/house.ts';
import { ask, granted } from '../support/house-verbs.ts';
import { apiTable, nameOf } from '../support/routes.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ pendingPerPerson: 3 });
});
afterAll(() => house?.close());

const asking = { entitlements: ['orders-readonly'], duration: '5m', reason: 'a reason' };

/** The story of a bug: each of many requests sent at once counted what waited before any of them was written, so all passed. */
test('many at once do not pass the cap together', async () => {
  const api = await house.apiAs('oncall-2');
  const answers = await Promise.all(Array.from({ length: 12 }, () => api.post('/requests', asking)));
  expect(answers.filter((answer) => answer.status === 201)).toHaveLength(3);
  for (const answer of answers.filter((one) => one.status !== 201)) {
    expect([answer.status, answer.body.code]).toEqual([429, 'too_many_pending']);
    expect(answer.headers.get('retry-after')).not.toBeNull();
  }
});

test('with the cap reached, giving back, revoking, claiming and break-glass go on', async () => {
  const api = await house.apiAs('oncall');
  const [one, two] = [await granted(house), await granted(house, { incident: 'INC-7' })];
  for (let index = 0; index < 3; index++) await ask(house);
  expect((await api.post('/requests', asking)).body.code).toBe('too_many_pending');
  expect((await api.post(`/grants/${one.grant}/leases`, { entitlement: 'orders-readonly' })).status).toBe(201);
  expect((await api.post(`/grants/${one.grant}/return`)).status).toBe(200);
  expect((await (await house.apiAs('lead')).post('/incidents/INC-7/revoke', { reason: 'over' })).body).toEqual({ ended: [two.grant] });
  expect((await api.post('/requests', { ...asking, breakGlass: true })).status).toBe(201);
});

test('the limit on calls does not touch what ends access', () => {
  const unlimited = apiTable.filter((route) => route.unlimited).map(nameOf);
  expect(unlimited.sort()).toEqual(['POST /grants/:id/return', 'POST /grants/:id/revoke', 'POST /incidents/:ref/revoke']);
});

test('a lapsed request makes room without anybody having swept it', async () => {
  await house.database.superuser.query(`UPDATE request SET lapses_at = now() WHERE state = 'pending'`);
  expect((await (await house.apiAs('oncall')).post('/requests', asking)).status).toBe(201);
});
