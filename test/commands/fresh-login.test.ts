/** Asking, deciding and breaking the glass with logins that are too old, too weak, or rest on old groups: refused with its code, witnessed, and never half done. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { decideRequest } from '../../src/commands/decide-request.ts';
import { submitRequest } from '../../src/commands/submit-request.ts';
import { secondFactor } from '../../src/demo/identity-provider.ts';
import { isRefusal } from '../../src/domain/errors.ts';
import type { House } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { groupsAre, loginsAre, refusalsOf, startStepUpHouse } from '../support/step-up-house.ts';

let house: House;
beforeAll(async () => {
  house = await startStepUpHouse();
  for (const person of ['oncall', 'oncall-2', 'lead', 'lead-2', 'stranger']) await house.tokenOf(person);
});
afterAll(() => house?.close());

const fresh = async (subject: string) => {
  await loginsAre(house, subject, 0);
  await groupsAre(house, subject, 0);
};
const asking = async (entitlement: string, more: object = {}, by = 'oncall') =>
  (await house.apiAs(by)).post<{ id: string; seen: string; grant: { id: string } | null }>('/requests', {
    entitlements: [entitlement],
    duration: '10m',
    reason: 'the queue grows',
    ...more,
  });
const approve = async (request: { id: string; seen: string }, by = 'lead') =>
  (await house.apiAs(by)).post<{ state: string }>(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'go on', seen: request.seen });
const countOf = async (table: 'request' | 'access_grant' | 'decision') =>
  (await house.database.superuser.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${table}`)).rows[0]?.count;

const challenge = (answer: { headers: Headers }) => answer.headers.get('www-authenticate');

test('asking with an old login: 401 as RFC 9470 says, witnessed, nothing kept; with a fresh one it is taken', async () => {
  await loginsAre(house, 'oncall', 601);
  const before = await countOf('request');
  const answer = await asking('orders-fresh');
  expect([answer.status, answer.body.code]).toEqual([401, 'step_up_required']);
  expect(answer.body).toMatchObject({ maxAge: 600 });
  expect(challenge(answer)).toBe(
    'Bearer realm="halligan", error="insufficient_user_authentication", error_description="This needs a login that is at most 10 minutes old.", max_age="600"',
  );
  expect(await countOf('request')).toBe(before);
  expect((await refusalsOf(house, 'access.refused', { person: 'oncall' })).at(-1)).toBe('step_up_required');
  expect((await asking('orders-plain')).status).toBe(201);
  await fresh('oncall');
  expect((await asking('orders-fresh')).status).toBe(201);
});

test('the same Idempotency-Key works on after the refusal, and gives the same request afterwards whatever the login', async () => {
  const post = async () =>
    (await house.apiAs('oncall')).post<{ id: string }>(
      '/requests',
      { entitlements: ['orders-fresh'], duration: '10m', reason: 'the queue grows' },
      { 'idempotency-key': 'one-key' },
    );
  await loginsAre(house, 'oncall', 3_600);
  expect((await post()).body.code).toBe('step_up_required');
  await fresh('oncall');
  const first = await post();
  expect(first.status).toBe(201);
  await loginsAre(house, 'oncall', 3_600);
  expect((await post()).body.id).toBe(first.body.id);
});

test('the class of the login counts, and the challenge names it', async () => {
  await fresh('oncall');
  const answer = await asking('orders-strong');
  expect([answer.status, answer.body.code]).toEqual([401, 'step_up_required']);
  expect(challenge(answer)).toContain(`max_age="600", acr_values="${secondFactor}"`);
  await house.database.superuser.query(`UPDATE token SET acr = $1 FROM person p WHERE p.id = person_id AND subject = 'oncall'`, [secondFactor]);
  expect((await asking('orders-strong')).status).toBe(201);
  await house.database.superuser.query('UPDATE token SET acr = NULL');
});

test('several entitlements: the strictest counts', async () => {
  await loginsAre(house, 'oncall', 601);
  const answer = await asking('orders-plain', { entitlements: ['orders-plain', 'orders-fresh', 'orders-strong'] });
  expect(answer.body).toMatchObject({ code: 'step_up_required', maxAge: 600, acrValues: [secondFactor] });
});

test('break-glass needs a login of five minutes and groups of fifteen, always', async () => {
  await fresh('oncall');
  await loginsAre(house, 'oncall', 301);
  const glass = { breakGlass: true };
  const before = await countOf('access_grant');
  const old = await asking('orders-plain', glass);
  expect(old.body).toMatchObject({ code: 'step_up_required', maxAge: 300, groupsMaxAge: 900 });
  await loginsAre(house, 'oncall', 290);
  await groupsAre(house, 'oncall', 901);
  const stale = await asking('orders-plain', glass);
  expect([stale.status, stale.body.code]).toEqual([401, 'groups_stale']);
  expect(challenge(stale)).toMatch(/^Bearer realm="halligan", error="insufficient_user_authentication", error_description="[^"]+", groups_max_age="900"$/);
  expect(await countOf('access_grant')).toBe(before);
  expect((await refusalsOf(house, 'access.refused', { person: 'oncall' })).slice(-2)).toEqual(['step_up_required', 'groups_stale']);
  await groupsAre(house, 'oncall', 0);
  expect((await asking('orders-plain', glass)).body.grant).not.toBeNull();
});

test('deciding: an old login and old groups are refused and witnessed, and the request still waits', async () => {
  await fresh('oncall');
  await fresh('lead');
  const request = await ask(house, { entitlement: 'orders-fresh' });
  await loginsAre(house, 'lead', 601);
  expect((await approve(request)).body.code).toBe('step_up_required');
  await loginsAre(house, 'lead', 599);
  await groupsAre(house, 'lead', 901);
  expect((await approve(request)).body.code).toBe('groups_stale');
  expect(await refusalsOf(house, 'decision.refused', { request: request.id })).toEqual(['step_up_required', 'groups_stale']);
  await groupsAre(house, 'lead', 0);
  expect((await approve(request)).body.state).toBe('approved');
});

test('a token that was issued before the policy asked for more is judged by what it proved, and so is one from before a step-up', async () => {
  await fresh('oncall');
  const request = await ask(house, { entitlement: 'orders-fresh' });
  const early = await house.apiAs('lead');
  await loginsAre(house, 'lead', 3_600);
  house.forgetToken('lead');
  await house.tokenOf('lead');
  const body = { decision: 'approve', reason: 'go on', seen: request.seen };
  expect((await early.post(`/requests/${request.id}/decisions`, body)).body.code).toBe('step_up_required');
  expect((await (await house.apiAs('lead')).post(`/requests/${request.id}/decisions`, body)).status).toBe(200);
});

test('the policy that the request carries counts as well as the one that is loaded: the stricter wins', async () => {
  await fresh('oncall');
  const strict = await ask(house, { entitlement: 'orders-fresh' });
  const lax = await ask(house, { entitlement: 'orders-plain' });
  await loginsAre(house, 'lead', 3_600);
  await groupsAre(house, 'lead', 0);
  const loaded = house.running.ctx.policy.entitlements;
  const [plain, freshly] = [loaded.get('orders-plain')!, loaded.get('orders-fresh')!];
  const { stepUp: _, ...relaxed } = freshly;
  Object.assign(house.running.ctx, {
    policy: {
      ...house.running.ctx.policy,
      entitlements: new Map([...loaded, ['orders-fresh', relaxed], ['orders-plain', { ...plain, stepUp: { maxAgeSeconds: 60 } }]]),
    },
  });
  try {
    for (const request of [strict, lax]) {
      const seen = (await (await house.apiAs('lead')).get<{ seen: string }>(`/requests/${request.id}`)).body.seen;
      expect((await approve({ ...request, seen })).body.code).toBe('step_up_required');
    }
  } finally {
    Object.assign(house.running.ctx, { policy: { ...house.running.ctx.policy, entitlements: loaded } });
  }
});

test('a stranger, the requester and a login by code learn nothing new from an old login', async () => {
  await fresh('oncall');
  const request = await ask(house, { entitlement: 'orders-fresh' });
  for (const person of ['stranger', 'oncall-2', 'oncall', 'lead']) {
    await loginsAre(house, person, 9_999);
    await groupsAre(house, person, 9_999);
  }
  expect((await approve(request, 'stranger')).body.code).toBe('not_found');
  expect((await approve(request, 'oncall-2')).body.code).toBe('not_found');
  expect((await approve(request, 'oncall')).body.code).toBe('self_decision');
  expect((await asking('orders-fresh', {}, 'stranger')).body.code).toBe('not_eligible');
  const byCode = { ...(await house.actor('lead', 'device')), authAt: new Date() };
  await expect(decideRequest(house.running.ctx, byCode, request.id, { decision: 'approve', reason: 'r', seen: request.seen })).rejects.toMatchObject({
    code: 'device_may_not_decide',
  });
  await fresh('lead');
});

const fromSlack = async (subject: string) => ({ ...(await house.actor(subject, 'slack')), authAt: new Date(0) });
const codeOf = (act: Promise<unknown>) =>
  act.then(
    () => 'done',
    (error) => (isRefusal(error) ? error.code : Promise.reject(error)),
  );

test.each([
  ['orders-plain', 'slack_may_not_decide'],
  ['slack-allow', 'done'],
  ['slack-step-up', 'step_up_required'],
  ['slack-allow-fresh', 'step_up_required'],
])('from Slack, a decision on %s: %s', async (entitlement, expected) => {
  await fresh('oncall');
  await groupsAre(house, 'lead', 0);
  const request = await ask(house, { entitlement });
  const decide = async () =>
    codeOf(decideRequest(house.running.ctx, await fromSlack('lead'), request.id, { decision: 'approve', reason: 'r', seen: request.seen }));
  await groupsAre(house, 'lead', 901);
  expect(await decide()).toBe(expected === 'done' ? 'groups_stale' : expected);
  await groupsAre(house, 'lead', 0);
  expect(await decide()).toBe(expected);
  expect(await refusalsOf(house, 'decision.refused', { request: request.id })).toEqual(expected === 'done' ? ['groups_stale'] : [expected, expected]);
});

test('from Slack, asking stops where a fresh login is needed, and break-glass always', async () => {
  await fresh('oncall');
  const actor = await fromSlack('oncall');
  const submit = (entitlement: string, breakGlass: boolean) =>
    codeOf(
      submitRequest(house.running.ctx, actor, { entitlements: [entitlement], durationSeconds: 600, reason: 'r', incident: null, startAt: null, breakGlass }),
    );
  expect(await submit('orders-plain', false)).toBe('done');
  expect(await submit('orders-fresh', false)).toBe('step_up_required');
  expect(await submit('orders-plain', true)).toBe('step_up_required');
  // Even one that claims to have just been proven.
  const claims = { ...actor, authAt: new Date() };
  const glass = { entitlements: ['orders-plain'], durationSeconds: 600, reason: 'r', incident: null, startAt: null, breakGlass: true };
  expect(await codeOf(submitRequest(house.running.ctx, claims, glass))).toBe('step_up_required');
});

test('a person whose login does not do makes Halligan call no target', async () => {
  await loginsAre(house, 'oncall', 3_600);
  // Descriptions are kept for a while by the loaded entitlement: another copy of it is read anew.
  const { policy } = house.running.ctx;
  const anew = new Map([...policy.entitlements].map(([name, entitlement]) => [name, { ...entitlement }]));
  Object.assign(house.running.ctx, { policy: { ...policy, entitlements: anew } });
  const describe = vi.spyOn(house.running.ctx.targets.get('orders-db')!, 'describe');
  expect((await asking('orders-fresh')).body.code).toBe('step_up_required');
  expect(describe).not.toHaveBeenCalled();
  await fresh('oncall');
  expect((await asking('orders-fresh')).status).toBe(201);
  expect(describe).toHaveBeenCalledTimes(1);
  describe.mockRestore();
});
