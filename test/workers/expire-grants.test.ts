/** The sweep over the due-index: starts, lapses and ends by Postgres' time, passes over what somebody else moved, and is certain without the queue. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { claimLease } from '../../src/commands/claim-lease.ts';
import type { Job, Queue } from '../../src/queue/port.ts';
import { expirer, runGrantDue, sweepDueGrants, sweepStartsAndLapses } from '../../src/workers/expire-grants.ts';
import { relayOutbox } from '../../src/workers/relay-outbox.ts';
import { sweepRevocations } from '../../src/workers/revoke-lease.ts';
import { type House, startTestHouse } from '../support/house.ts';
import { ask, claimed, eventsOf, granted } from '../support/house-verbs.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
});
afterAll(() => house?.close());

/** Keeps what is put on it and runs nothing. */
function recordingQueue(): Queue & { jobs: Job[] } {
  const jobs: Job[] = [];
  return {
    jobs,
    add: async (job) => void jobs.push(job),
    start: () => undefined,
    hold: () => undefined,
    stop: async () => undefined,
    depth: () => ({ waiting: jobs.length, running: 0, failed: 0 }),
  };
}
const sql = (text: string, ...values: unknown[]) => house.database.superuser.query(text, values);
const grantState = async (id: string) =>
  (await house.database.superuser.query<{ state: string }>('SELECT state FROM access_grant WHERE id = $1', [id])).rows[0]?.state;

/** A grant that starts in so many seconds. */
async function scheduled(seconds: number): Promise<string> {
  const oncall = await house.apiAs('oncall');
  const startAt = new Date(Date.now() + seconds * 1_000).toISOString();
  const request = (
    await oncall.post<{ id: string; seen: string }>('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'later', startAt })
  ).body;
  const answer = await (await house.apiAs('lead')).post<{ grant: { id: string; state: string } }>(`/requests/${request.id}/decisions`, {
    decision: 'approve',
    reason: 'r',
    seen: request.seen,
  });
  expect(answer.body.grant.state).toBe('scheduled');
  return answer.body.grant.id;
}

test('only what ends within two minutes is put on the queue, under an id that carries the epoch', async () => {
  const [near, far] = [await granted(house), await granted(house)];
  await sql(`UPDATE access_grant SET ends_at = now() + interval '90 s', epoch = 7 WHERE id = $1`, near.grant);
  const queue = recordingQueue();
  await sweepDueGrants(house.running.ctx, queue);
  expect(queue.jobs.filter((job) => job.subject === near.grant).map((job) => [job.id, job.lane])).toEqual([[`grant-due-${near.grant}-7`, 'expiry']]);
  expect(queue.jobs.some((job) => job.subject === far.grant)).toBe(false);
});

test('a job that comes before its time ends nothing: the grant stays, and the code says why', async () => {
  const { grant } = await granted(house);
  await expect(runGrantDue(expirer(house.running.ctx), grant)).rejects.toMatchObject({ code: 'conflict' });
  expect(await grantState(grant)).toBe('active');
  await sql('UPDATE access_grant SET ends_at = now() WHERE id = $1', grant);
  await Promise.all(Array.from({ length: 5 }, () => runGrantDue(expirer(house.running.ctx), grant)));
  expect(await grantState(grant)).toBe('ended');
  expect((await eventsOf(house, 'grant_id', grant)).filter((type) => type === 'grant.ended')).toHaveLength(1);
  await runGrantDue(expirer(house.running.ctx), grant);
  await runGrantDue(expirer(house.running.ctx), `gnt_${'0'.repeat(32)}`);
});

test('a scheduled grant starts when its time has come, by the sweep or by the claim, whichever is first', async () => {
  const [bySweep, byClaim, notYet] = [await scheduled(60), await scheduled(60), await scheduled(60)];
  await sql(`UPDATE access_grant SET starts_at = now() - interval '1 ms' WHERE id = ANY ($1)`, [bySweep, byClaim]);
  const claim = await claimLease(house.running.ctx, await house.actor('oncall'), byClaim, 'orders-readonly');
  expect(claim.grantId).toBe(byClaim);
  await sweepStartsAndLapses(house.running.ctx);
  expect(await Promise.all([bySweep, byClaim, notYet].map(grantState))).toEqual(['active', 'active', 'scheduled']);
  expect((await eventsOf(house, 'grant_id', byClaim)).filter((type) => type === 'grant.started')).toHaveLength(1);
});

test('a scheduled grant whose whole window passed while nobody was there is cancelled, never opened', async () => {
  const grant = await scheduled(60);
  await sql(`UPDATE access_grant SET starts_at = now() - interval '2 s', ends_at = now() - interval '1 s' WHERE id = $1`, grant);
  await sweepStartsAndLapses(house.running.ctx);
  expect(await grantState(grant)).toBe('scheduled');
  await expect(claimLease(house.running.ctx, await house.actor('oncall'), grant, 'orders-readonly')).rejects.toMatchObject({ code: 'grant_not_active' });
  await runGrantDue(expirer(house.running.ctx), grant);
  expect(await grantState(grant)).toBe('cancelled');
  expect(await eventsOf(house, 'grant_id', grant)).toEqual(['grant.opened', 'claim.refused', 'grant.expired']);
});

test('a request that lapsed is refused to a late decider before anybody has swept it, and lapses once', async () => {
  const request = await ask(house);
  await sql('UPDATE request SET lapses_at = now() WHERE id = $1', request.id);
  const lead = await house.apiAs('lead');
  const shown = await lead.get<{ state: string; mayDecide: boolean }>(`/requests/${request.id}`);
  expect(shown.body).toMatchObject({ state: 'lapsed', mayDecide: false });
  const late = await lead.post(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'r', seen: request.seen });
  expect([late.status, late.body.code]).toEqual([409, 'request_lapsed']);
  await Promise.all([sweepStartsAndLapses(house.running.ctx), sweepStartsAndLapses(house.running.ctx)]);
  expect((await eventsOf(house, 'request_id', request.id)).filter((type) => type === 'request.lapsed')).toHaveLength(1);
});

test('the relay carries each message once, keeps what fails, and leaves the far future to the sweep', async () => {
  const { ctx } = house.running;
  await relayOutbox(ctx.db, recordingQueue());
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  const broken: Queue = {
    ...recordingQueue(),
    add: async () => {
      throw new Error('the queue is away');
    },
  };
  await expect(relayOutbox(ctx.db, broken)).rejects.toThrow('the queue is away');
  const queue = recordingQueue();
  const carried = await Promise.all([relayOutbox(ctx.db, queue), relayOutbox(ctx.db, queue)]);
  // The end of the grant, ten minutes away, is carried off the outbox but put on no queue.
  expect(carried[0] + carried[1]).toBe(2);
  expect(queue.jobs.map((job) => [job.kind, job.subject, job.lane])).toEqual([['revoke-lease', issued.lease, 'target:orders-db']]);
  expect(await relayOutbox(ctx.db, queue)).toBe(0);
  // A lost job is found by the sweep, under the same id.
  const found = recordingQueue();
  await sweepRevocations(ctx, found);
  expect(found.jobs.map((job) => job.id)).toContain(queue.jobs[0]?.id);
});
