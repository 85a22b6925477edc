/** Invariants 13 to 16 and 25: who decides, once, on exactly what was shown, judged again when it counts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { claimLease } from '../../src/commands/claim-lease.ts';
import type { Policy } from '../../src/commands/context.ts';
import { decideRequest } from '../../src/commands/decide-request.ts';
import type { Entitlement } from '../../src/domain/entitlement.ts';
import { loginAs } from '../support/browserless-login.ts';
import { type House, startTestHouse } from '../support/house.ts';
import { ask, claim, eventsOf, granted } from '../support/house-verbs.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse();
  for (const person of ['lead', 'lead-2', 'lead-oncall', 'security']) await house.apiAs(person);
});
afterAll(() => house?.close());

const decide = async (by: string, request: { id: string; seen: string }, decision = 'approve') =>
  (await house.apiAs(by)).post<{ state: string; grant: { id: string } | null }>(`/requests/${request.id}/decisions`, {
    decision,
    reason: 'a reason',
    seen: request.seen,
  });
const codeOf = (answer: { status: number; body: { code?: string } }) => `${answer.status} ${answer.body.code ?? ''}`.trim();
const count = async (sql: string, ...values: unknown[]) =>
  Number((await house.database.superuser.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${sql}`, values)).rows[0]!.n);

describe('invariant 13: nobody decides on their own request', () => {
  test('invariant 13: not by a terminal, although their group may approve', async () => {
    const request = await ask(house, { by: 'lead-oncall' });
    expect(codeOf(await decide('lead-oncall', request))).toBe('403 self_decision');
    expect(await eventsOf(house, 'request_id', request.id)).toEqual(['request.submitted', 'decision.refused']);
    expect(await count('decision WHERE request_id = $1', request.id)).toBe(0);
  });

  test('invariant 13: not on the web page, which says so in words', async () => {
    const request = await ask(house, { by: 'lead-oncall' });
    const browser = await loginAs(house.url, 'lead-oncall');
    const answer = await browser.submit(`/requests/${request.id}/decide`, { decision: 'approve', reason: 'mine', seen: request.seen });
    expect(answer.status).toBe(422);
    expect(await answer.text()).toContain('Nobody decides on their own request');
    expect(await count('decision WHERE request_id = $1', request.id)).toBe(0);
    const page = await (await browser.fetch(`/requests/${request.id}`)).text();
    expect(page).not.toContain('name="decision"');
  });

  test('invariant 13: the database refuses it by the name of the rule, also with a forged requester', async () => {
    const request = await ask(house, { by: 'lead-oncall' });
    const self = (await house.actor('lead-oncall')).id;
    const other = (await house.actor('lead')).id;
    const insert = (requester: string) =>
      house.database.app.query(
        `INSERT INTO decision (id, request_id, requester_id, person_id, decision, reason, seen, via) VALUES ('dec_x', $1, $2, $3, 'approve', 'r', 's', 'sql')`,
        [request.id, requester, self],
      );
    await expect(insert(self)).rejects.toMatchObject({ constraint: 'decision_never_by_requester' });
    await expect(insert(other)).rejects.toMatchObject({ constraint: 'decision_is_of_the_request' });
  });

  test('invariant 13: a quorum never counts the requester, even with the check in the code gone', async () => {
    const request = await ask(house, { by: 'lead-oncall', entitlement: 'orders-two' });
    expect(codeOf(await decide('lead', request))).toBe('200');
    expect(codeOf(await decide('lead-oncall', request))).toBe('403 self_decision');
    expect(codeOf(await decide('lead-2', request))).toBe('200');
  });
});

describe('invariant 14: a request leaves pending once', () => {
  test('invariant 14: sixteen deciders at once, twenty rounds: one outcome, one event, everybody else 409', async () => {
    const leads = [await house.actor('lead'), await house.actor('lead-2')];
    for (let round = 0; round < 20; round++) {
      const request = await ask(house);
      const results = await Promise.all(
        Array.from({ length: 16 }, (_, index) =>
          decideRequest(house.running.ctx, leads[index % 2]!, request.id, {
            decision: (index + round) % 3 === 0 ? 'deny' : 'approve',
            reason: `decider ${index}`,
            seen: request.seen,
          }).then(
            (decided) => decided.state as string,
            (error: { code?: string }) => error.code ?? String(error),
          ),
        ),
      );
      const won = results.filter((result) => result === 'approved' || result === 'denied');
      expect(won).toHaveLength(1);
      for (const result of results.filter((one) => one !== won[0])) expect(['request_already_decided', 'decision_repeated', 'conflict']).toContain(result);
      expect(await count(`audit_event WHERE request_id = $1 AND type IN ('request.approved', 'request.denied')`, request.id)).toBe(1);
      expect(await count('decision WHERE request_id = $1', request.id)).toBe(1);
      expect(await count('access_grant WHERE request_id = $1', request.id)).toBe(won[0] === 'approved' ? 1 : 0);
    }
  }, 60_000);

  test('invariant 14: over HTTP the loser gets 409 with the code, and withdrawing meets the same rule', async () => {
    const request = await ask(house);
    const answers = await Promise.all([
      decide('lead', request),
      decide('lead-2', request, 'deny'),
      (await house.apiAs('oncall')).post(`/requests/${request.id}/withdraw`),
    ]);
    const codes = answers.map(codeOf).sort();
    expect(codes).toEqual(['200', '409 request_already_decided', '409 request_already_decided']);
  });

  test('invariant 14: one person counts once, and two kinds of eyes are two people', async () => {
    const two = await ask(house, { entitlement: 'orders-two' });
    expect((await decide('lead', two)).body.state).toBe('pending');
    expect(codeOf(await decide('lead', two))).toBe('409 decision_repeated');
    expect((await decide('lead-2', two)).body.state).toBe('approved');
    const both = await ask(house, { entitlement: 'orders-both' });
    expect((await decide('lead', both)).body.state).toBe('pending');
    expect((await decide('lead-2', both)).body.state).toBe('pending');
    const last = await decide('security', both);
    expect(last.body.state).toBe('approved');
    expect(last.body.grant?.id).toMatch(/^gnt_/);
  });

  test('invariant 14: one deny ends it, whatever was approved before', async () => {
    const request = await ask(house, { entitlement: 'orders-both' });
    await decide('lead', request);
    expect((await decide('security', request, 'deny')).body.state).toBe('denied');
    expect(codeOf(await decide('lead-2', request))).toBe('409 request_already_decided');
  });
});

/** The policy with one entitlement changed (or taken out), until `undo()`. */
function changed(name: string, change: (entitlement: Entitlement) => Entitlement | null): () => void {
  const { ctx } = house.running;
  const before: Policy = ctx.policy;
  const entitlements = new Map(before.entitlements);
  const next = change(entitlements.get(name)!);
  if (next) entitlements.set(name, next);
  else entitlements.delete(name);
  ctx.policy = { ...before, entitlements };
  return () => {
    ctx.policy = before;
  };
}

describe('invariant 15: what you see is what you grant', () => {
  test.each([
    ['what the policy says it opens', (entitlement: Entitlement) => ({ ...entitlement, opens: 'write to the orders database' })],
    ['what it grants', (entitlement: Entitlement) => ({ ...entitlement, grant: { role: 'postgres' } })],
    ['its limit', (entitlement: Entitlement) => ({ ...entitlement, maxDurationSeconds: 60 })],
    ['who approves', (entitlement: Entitlement) => ({ ...entitlement, approval: [{ of: { groups: ['leads'], subjects: ['oncall'] }, count: 1 }] })],
  ])('invariant 15: %s changed after it was shown: 409 seen_stale', async (_, change) => {
    const request = await ask(house);
    const undo = changed('orders-readonly', change);
    try {
      expect(codeOf(await decide('lead', request))).toBe('409 seen_stale');
    } finally {
      undo();
    }
    expect(codeOf(await decide('lead', request))).toBe('200');
  });

  test.each([
    ['duration_seconds', 'duration_seconds + 1'],
    ['reason', "reason || '!'"],
    ['incident', "'INC-9'"],
    ['break_glass', 'NOT break_glass'],
    ['start_at', 'now()'],
    ['policy_hash', "'x'"],
  ])('invariant 15: the row changed in %s after it was shown: 409 seen_stale', async (column, expression) => {
    const request = await ask(house);
    await house.database.superuser.query(`UPDATE request SET ${column} = ${expression} WHERE id = $1`, [request.id]);
    expect(codeOf(await decide('lead', request))).toBe('409 seen_stale');
  });

  test('invariant 15: the name of the person is part of what was shown', async () => {
    const request = await ask(house);
    await house.database.superuser.query(`UPDATE person SET name = 'Somebody quite different' WHERE subject = 'oncall'`);
    expect(codeOf(await decide('lead', request))).toBe('409 seen_stale');
    await house.database.superuser.query(`UPDATE person SET name = 'On-call engineer' WHERE subject = 'oncall'`);
  });

  test('invariant 15: a hash of another request is stale, and fields beside the decision are refused', async () => {
    const [one, other] = [await ask(house), await ask(house)];
    expect(codeOf(await decide('lead', { id: one.id, seen: other.seen }))).toBe('409 seen_stale');
    const lead = await house.apiAs('lead');
    for (const extra of [{ durationSeconds: 99_999 }, { entitlements: ['orders-two'] }, { person: 'per_x' }, { grant: {} }]) {
      const answer = await lead.post(`/requests/${one.id}/decisions`, { decision: 'approve', reason: 'x', seen: one.seen, ...extra });
      expect(codeOf(answer)).toBe('400 bad_input');
    }
    expect(codeOf(await lead.post(`/requests/${one.id}/decisions`, { decision: 'approve', reason: 'x' }))).toBe('400 bad_input');
    expect(await count('decision WHERE request_id = $1', one.id)).toBe(0);
  });

  test('invariant 15: what the requester may not say about themself is refused when asking', async () => {
    const oncall = await house.apiAs('oncall');
    const before = await count('request');
    for (const extra of [{ person: 'per_x' }, { personId: 'per_x' }, { state: 'approved' }, { policy: [] }, { approval: [] }, { durationSeconds: 5 }])
      expect(codeOf(await oncall.post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'r', ...extra }))).toBe('400 bad_input');
    expect(await count('request')).toBe(before);
  });
});

describe('invariant 16: judged again in the transaction that issues', () => {
  const setGroups = (subject: string, groups: string[]) =>
    house.database.superuser.query('UPDATE person SET groups = $2 WHERE subject = $1', [subject, groups]);

  test('invariant 16: the holder lost their group between approval and claim', async () => {
    const { grant } = await granted(house);
    await setGroups('oncall', []);
    expect(codeOf(await claim(house, grant))).toBe('403 not_eligible');
    await setGroups('oncall', ['oncall']);
    expect(await count('lease WHERE grant_id = $1', grant)).toBe(0);
    expect(await eventsOf(house, 'grant_id', grant)).toContain('claim.refused');
  });

  test('invariant 16: the approver lost their group between approval and claim', async () => {
    const { grant } = await granted(house);
    await setGroups('lead', []);
    expect(codeOf(await claim(house, grant))).toBe('409 policy_changed');
    await setGroups('lead', ['leads']);
    expect(codeOf(await claim(house, grant))).toBe('201');
  });

  test.each([
    [
      'now asks for two approvals',
      '409 policy_changed',
      (entitlement: Entitlement) => ({ ...entitlement, approval: [{ of: { groups: ['leads'], subjects: [] }, count: 2 }] }),
    ],
    ['now names nobody who approves', '409 policy_changed', (entitlement: Entitlement) => ({ ...entitlement, approval: [] })],
    ['now lists nobody as eligible', '403 not_eligible', (entitlement: Entitlement) => ({ ...entitlement, eligible: { groups: [], subjects: [] } })],
    ['is gone', '409 policy_changed', () => null],
    ['now opens another role than was approved', '409 policy_changed', (entitlement: Entitlement) => ({ ...entitlement, grant: { role: 'something_else' } })],
    ['now lives at a target that is not loaded', '409 policy_changed', (entitlement: Entitlement) => ({ ...entitlement, target: 'elsewhere' })],
  ])('invariant 16: the policy %s: %s', async (_, expected, change) => {
    const { grant } = await granted(house);
    const undo = changed('orders-readonly', change);
    const answer = await claim(house, grant).finally(undo);
    expect(codeOf(answer)).toBe(expected);
    expect(await count('lease WHERE grant_id = $1', grant)).toBe(0);
  });

  test('invariant 15: a role that was given more at its target since it was asked for opens nothing; given back, it does', async () => {
    const { grant } = await granted(house);
    const { groupRole, superuser } = house.target;
    await superuser.query(`GRANT DELETE ON orders TO ${groupRole}`);
    const answer = await claim(house, grant);
    await superuser.query(`REVOKE DELETE ON orders FROM ${groupRole}`);
    expect(codeOf(answer)).toBe('409 policy_changed');
    expect(answer.text).toContain('has changed since it was asked for');
    const { rows } = await house.database.superuser.query('SELECT state, end_reason FROM lease WHERE grant_id = $1', [grant]);
    expect(rows).toEqual([{ state: 'void', end_reason: 'unfinished' }]);
    expect(await eventsOf(house, 'grant_id', grant)).toContain('lease.voided');
    expect(codeOf(await claim(house, grant))).toBe('201');
  });

  test('invariant 16: an approver who lost the group may not decide, nor counts with an earlier approval', async () => {
    const request = await ask(house, { entitlement: 'orders-two' });
    await decide('lead', request);
    await setGroups('lead', []);
    expect((await decide('lead-2', request)).body.state).toBe('pending');
    await setGroups('lead', ['leads']);
    const late = await ask(house);
    await setGroups('lead-2', []);
    expect(codeOf(await decide('lead-2', late))).toBe('404 not_found');
    await setGroups('lead-2', ['leads']);
  });

  test('invariant 16: a policy that got stricter before the decision decides by both', async () => {
    const request = await ask(house);
    const undo = changed('orders-readonly', (entitlement) => ({ ...entitlement, approval: [{ of: { groups: ['leads'], subjects: [] }, count: 2 }] }));
    try {
      const shown = await (await house.apiAs('lead')).get<{ seen: string }>(`/requests/${request.id}`);
      expect((await decide('lead', { id: request.id, seen: shown.body.seen })).body.state).toBe('pending');
    } finally {
      undo();
    }
  });

  test('invariant 16: a login by device code may claim and not decide', async () => {
    const request = await ask(house);
    const device = await house.actor('lead', 'device');
    await expect(decideRequest(house.running.ctx, device, request.id, { decision: 'approve', reason: 'r', seen: request.seen })).rejects.toMatchObject({
      code: 'device_may_not_decide',
    });
    const { grant } = await granted(house);
    const claimed = await claimLease(house.running.ctx, await house.actor('oncall', 'device'), grant, 'orders-readonly');
    expect(claimed.issued.handle).toMatch(/^hg_lse_/);
  });
});

test('invariant 25: every eligible approver sees an accepted request at once, by query, and nobody else does', async () => {
  const request = await ask(house, { entitlement: 'orders-both' });
  for (const [person, sees] of [
    ['lead', true],
    ['lead-2', true],
    ['lead-oncall', true],
    ['security', true],
    ['oncall', false],
    ['oncall-2', false],
    ['stranger', false],
    ['auditor', false],
  ] as const) {
    const api = await house.apiAs(person);
    const list = await api.get<{ items: { id: string; mayDecide: boolean }[] }>('/requests?toDecide=true');
    expect([person, list.body.items.some((item) => item.id === request.id && item.mayDecide)]).toEqual([person, sees]);
  }
  const page = await (await (await loginAs(house.url, 'security')).fetch('/decide')).text();
  expect(page).toContain(request.id);
});
