/** Invariants 11 and 17: how old a login is, and how old its groups are, is told by Postgres' clock, whatever the application's own says. */
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { apiOf, type House } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { groupsAre, loginsAre, startStepUpHouse } from '../support/step-up-house.ts';

let house: House | undefined;
let child: ChildServer | undefined;
afterEach(async () => {
  await child?.stop();
  child = undefined;
  await house?.close();
  house = undefined;
  delete process.env['HALLIGAN_TEST_CLOCK_SHIFT_MS'];
});

const shiftFile = fileURLToPath(new URL('../support/clock-shift.mjs', import.meta.url));

test.each([
  ['ten minutes ahead', 600_000],
  ['ten minutes behind', -600_000],
] as const)('with a clock %s, what is fresh is fresh and what is old is old', async (_, shift) => {
  house = await startStepUpHouse({ worker: false });
  const at = house;
  for (const person of ['oncall', 'lead']) await at.tokenOf(person);
  const [first, second] = [await ask(at, { entitlement: 'orders-fresh' }), await ask(at, { entitlement: 'orders-fresh' })];
  await at.stop();
  process.env['HALLIGAN_TEST_CLOCK_SHIFT_MS'] = String(shift);
  child = await startChild(at, [shiftFile]);
  const lead = apiOf(at.url, await at.tokenOf('lead'));
  const oncall = apiOf(at.url, await at.tokenOf('oncall'));
  const approve = async (request: { id: string; seen: string }) => {
    const answer = await lead.post(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'r', seen: request.seen });
    return answer.body.code ?? answer.status;
  };
  const breakGlass = async () => {
    const answer = await oncall.post('/requests', { entitlements: ['orders-plain'], duration: '10m', reason: 'r', breakGlass: true });
    return answer.body.code ?? answer.status;
  };

  await loginsAre(at, 'lead', 605);
  await loginsAre(at, 'oncall', 305);
  expect([await approve(first), await breakGlass()]).toEqual(['step_up_required', 'step_up_required']);
  await loginsAre(at, 'lead', 590);
  await loginsAre(at, 'oncall', 290);
  await groupsAre(at, 'lead', 905);
  await groupsAre(at, 'oncall', 905);
  expect([await approve(first), await breakGlass()]).toEqual(['groups_stale', 'groups_stale']);
  await groupsAre(at, 'lead', 890);
  await groupsAre(at, 'oncall', 890);
  expect([await approve(first), await approve(second), await breakGlass()]).toEqual([200, 200, 201]);
});
