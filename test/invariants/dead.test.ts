/** Invariant 1: every process dead at the worst moment, and the target alone keeps the promise that the provider declares. */
import { afterEach, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { type House, startTestHouse } from '../support/house.ts';
import { type ClaimedAnswer, connectWith, granted, loginAnswer } from '../support/house-verbs.ts';

let house: House | undefined;
let child: ChildServer | undefined;
afterEach(async () => {
  await child?.kill();
  child = undefined;
  await house?.close();
  house = undefined;
});

test('invariant 1: killed right after the claim: new logins are refused from the end on; an open session is what `limits` says it is', async () => {
  house = await startTestHouse({ server: 'none' });
  child = await startChild(house);
  const { grant } = await granted(house, { duration: '4s' });
  const issued = (await (await house.apiAs('oncall')).post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' })).body;
  const { body } = await (await house.apiAs('oncall')).get<{
    items: { name: string; limits: { newLogin: { dead: number | null }; openSession: { dead: number | null } } }[];
  }>('/entitlements');
  const limits = body.items.find((item) => item.name === 'orders-readonly')!.limits;
  const open = await connectWith(issued);
  await child.kill();
  child = undefined;

  const end = Date.parse(issued.expiresAt);
  let lastIn = 0;
  let firstRefused = 0;
  while (Date.now() < end + 2_000) {
    const before = Date.now();
    const answer = await loginAnswer(issued);
    if (answer === 'let in') lastIn = before;
    else {
      expect(answer).toBe('28P01');
      firstRefused ||= before;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  console.log(`dead: the last login that was let in began ${lastIn - end} ms from the end, the first refused one ${firstRefused - end} ms`);
  expect(lastIn).toBeGreaterThan(0);
  expect((lastIn - end) / 1_000).toBeLessThanOrEqual(limits.newLogin.dead ?? 0);
  expect(lastIn).toBeLessThanOrEqual(end + 100);
  // Nobody is alive to cut it: the declaration must not promise an end.
  const works = (await open.query('SELECT 1 AS one')).rows[0]?.one === 1;
  expect(works).toBe(true);
  expect(limits.openSession.dead).toBeNull();
  await open.end();
}, 40_000);
