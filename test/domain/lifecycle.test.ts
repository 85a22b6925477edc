/** The four machines against tables written here by hand from the design, so that a change of a rule is a change of two files. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type GrantEvent,
  type GrantFacts,
  type GrantState,
  grantMachine,
  type LeaseEvent,
  type LeaseState,
  leaseMachine,
  type Machine,
  nextTryInSeconds,
  type Outcome,
  type Refused,
  type RequestEvent,
  type RequestFacts,
  type RequestState,
  requestMachine,
  reviewMachine,
  transition,
} from '../../src/domain/lifecycle.ts';

const edge = new Date('2026-03-01T12:00:00Z');
const off = (ms: number): Date => new Date(edge.getTime() + ms);

/** `to: audit.event, effect` or `no: code`. */
function said<S extends string, E extends string, F>(machine: Machine<S, E, F>, state: S, event: E, facts: F, now: Date): string {
  const result = transition(machine, state, event, facts, now);
  return 'refuse' in result ? `no: ${result.refuse}` : [`${result.to}: ${result.auditEvent}`, ...result.effects].join(', ');
}

/** Reads a machine at every pair and compares it with a table of `state event → answer`. */
function isExactly<S extends string, E extends string, F>(machine: Machine<S, E, F>, facts: F, now: Date, table: string): void {
  const expected = table
    .trim()
    .split('\n')
    .map((line) => line.trim().replace(/\s*\|\s*/g, ' | '));
  const got = (Object.keys(machine) as S[]).flatMap((state) =>
    (Object.keys(machine[state]) as E[]).map((event) => `${state} | ${event} | ${said(machine, state, event, facts, now)}`),
  );
  expect(got.toSorted()).toEqual(expected.toSorted());
}

describe('request', () => {
  const facts = (quorumMet: boolean): RequestFacts => ({ quorumMet, lapsesAt: edge });
  const final = `
    approved  | approve     | no: request_already_decided
    approved  | deny        | no: request_already_decided
    approved  | withdraw    | no: request_already_decided
    approved  | lapse       | no: request_already_decided
    approved  | break-glass | no: request_already_decided
    denied    | approve     | no: request_already_decided
    denied    | deny        | no: request_already_decided
    denied    | withdraw    | no: request_already_decided
    denied    | lapse       | no: request_already_decided
    denied    | break-glass | no: request_already_decided
    withdrawn | approve     | no: request_already_decided
    withdrawn | deny        | no: request_already_decided
    withdrawn | withdraw    | no: request_already_decided
    withdrawn | lapse       | no: request_already_decided
    withdrawn | break-glass | no: request_already_decided
    lapsed    | approve     | no: request_lapsed
    lapsed    | deny        | no: request_lapsed
    lapsed    | withdraw    | no: request_already_decided
    lapsed    | lapse       | no: request_already_decided
    lapsed    | break-glass | no: request_lapsed`;

  test('in time, with the quorum met', () => {
    isExactly(
      requestMachine,
      facts(true),
      off(-1),
      `pending | approve     | approved: request.approved, open-grant
       pending | deny        | denied: request.denied
       pending | withdraw    | withdrawn: request.withdrawn
       pending | lapse       | no: conflict
       pending | break-glass | approved: request.glass-broken, open-grant, owe-review${final}`,
    );
  });

  test('in time, with more approvals needed', () => {
    isExactly(
      requestMachine,
      facts(false),
      off(-1),
      `pending | approve     | pending: request.approval-given
       pending | deny        | denied: request.denied
       pending | withdraw    | withdrawn: request.withdrawn
       pending | lapse       | no: conflict
       pending | break-glass | approved: request.glass-broken, open-grant, owe-review${final}`,
    );
  });

  test.each([0, 1])('%i ms after its end nobody decides, though no sweep has come by', (ms) => {
    isExactly(
      requestMachine,
      facts(true),
      off(ms),
      `pending | approve     | no: request_lapsed
       pending | deny        | no: request_lapsed
       pending | withdraw    | withdrawn: request.withdrawn
       pending | lapse       | lapsed: request.lapsed
       pending | break-glass | no: request_lapsed${final}`,
    );
  });

  test('invariant 14: whatever comes in whatever order, a request leaves pending at most once and is then final', () => {
    const events = Object.keys(requestMachine.pending) as RequestEvent[];
    const step = fc.record({ event: fc.constantFrom(...events), quorumMet: fc.boolean(), ms: fc.integer({ min: -3, max: 3 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        let state: RequestState = 'pending';
        let left = 0;
        let granted = 0;
        for (const { event, quorumMet, ms } of steps) {
          const result: Outcome<RequestState> | Refused = transition(requestMachine, state, event, facts(quorumMet), off(ms));
          if ('refuse' in result) continue;
          expect(state).toBe('pending');
          if (result.to !== 'pending') left++;
          if (result.effects.includes('open-grant')) granted++;
          state = result.to;
        }
        expect(left).toBe(state === 'pending' ? 0 : 1);
        expect(granted).toBe(state === 'approved' ? 1 : 0);
      }),
    );
  });
});

describe('grant', () => {
  const facts = (openLeases: number): GrantFacts => ({ startsAt: off(-60_000), endsAt: edge, openLeases });
  const over = (state: string, leasesGone = 'no: grant_not_active') => `
    ${state} | start          | no: grant_not_active
    ${state} | expire         | no: grant_not_active
    ${state} | return         | no: grant_not_active
    ${state} | revoke         | no: grant_not_active
    ${state} | offboard       | no: grant_not_active
    ${state} | close-incident | no: grant_not_active
    ${state} | leases-gone    | ${leasesGone}`;
  const early = `
    scheduled | return         | cancelled: grant.returned
    scheduled | revoke         | cancelled: grant.revoked
    scheduled | offboard       | cancelled: grant.offboarded
    scheduled | close-incident | cancelled: grant.incident-closed
    scheduled | leases-gone    | no: grant_not_active
    active    | start          | no: conflict
    active    | return         | ending: grant.returned, end-leases
    active    | revoke         | ending: grant.revoked, end-leases
    active    | offboard       | ending: grant.offboarded, end-leases
    active    | close-incident | ending: grant.incident-closed, end-leases
    active    | leases-gone    | no: conflict`;

  test.each([-60_000, -1])('in its window, %i ms from its end', (ms) => {
    isExactly(
      grantMachine,
      facts(1),
      off(ms),
      `scheduled | start  | active: grant.started
       scheduled | expire | no: conflict
       active    | expire | no: conflict${early}${over('ending', 'no: conflict')}${over('ended')}${over('cancelled')}`,
    );
  });

  test.each([0, 1])('%i ms after its end it cannot start, and is due', (ms) => {
    isExactly(
      grantMachine,
      facts(0),
      off(ms),
      `scheduled | start  | no: grant_not_active
       scheduled | expire | cancelled: grant.expired
       active    | expire | ending: grant.expired, end-leases${early}${over('ending', 'ended: grant.ended')}${over('ended')}${over('cancelled')}`,
    );
  });

  test('it starts at its time, not a millisecond earlier', () => {
    expect(said(grantMachine, 'scheduled', 'start', facts(0), off(-60_001))).toBe('no: grant_not_active');
    expect(said(grantMachine, 'scheduled', 'start', facts(0), off(-60_000))).toBe('active: grant.started');
    expect(said(grantMachine, 'scheduled', 'start', facts(0), off(-59_999))).toBe('active: grant.started');
  });

  test('invariant 5: it is ended only when no lease is left, and final states stay final', () => {
    const events = Object.keys(grantMachine.active) as GrantEvent[];
    const step = fc.record({ event: fc.constantFrom(...events), openLeases: fc.nat(3), ms: fc.integer({ min: -3, max: 3 }) });
    fc.assert(
      fc.property(fc.constantFrom<GrantState>('scheduled', 'active'), fc.array(step, { maxLength: 40 }), (first, steps) => {
        let state: GrantState = first;
        for (const { event, openLeases, ms } of steps) {
          const result: Outcome<GrantState> | Refused = transition(grantMachine, state, event, facts(openLeases), off(ms));
          if ('refuse' in result) continue;
          expect(['ended', 'cancelled']).not.toContain(state);
          if (result.to === 'ended') expect([state, openLeases]).toEqual(['ending', 0]);
          // Nothing leads back.
          const order = ['scheduled', 'active', 'ending', 'ended', 'cancelled'];
          expect(order.indexOf(result.to)).toBeGreaterThan(order.indexOf(state));
          if (state === 'active') expect(result.effects).toEqual(['end-leases']);
          state = result.to;
        }
      }),
    );
  });
});

describe('lease', () => {
  const facts = {};
  test('every pair', () => {
    isExactly(
      leaseMachine,
      facts,
      edge,
      `issuing  | issued        | live: lease.revealed
       issuing  | end           | revoking: lease.ending, revoke-at-target
       issuing  | gone          | no: conflict
       issuing  | never-existed | void: lease.voided
       issuing  | try-failed    | no: conflict
       live     | issued        | no: conflict
       live     | end           | revoking: lease.ending, revoke-at-target
       live     | gone          | no: conflict
       live     | never-existed | no: conflict
       live     | try-failed    | no: conflict
       revoking | issued        | no: grant_not_active
       revoking | end           | no: lease_not_open
       revoking | gone          | revoked: lease.revoked
       revoking | never-existed | no: conflict
       revoking | try-failed    | revoking: lease.revocation-failed, revoke-at-target
       revoked  | issued        | no: lease_not_open
       revoked  | end           | no: lease_not_open
       revoked  | gone          | no: lease_not_open
       revoked  | never-existed | no: lease_not_open
       revoked  | try-failed    | no: lease_not_open
       void     | issued        | no: lease_not_open
       void     | end           | no: lease_not_open
       void     | gone          | no: lease_not_open
       void     | never-existed | no: lease_not_open
       void     | try-failed    | no: lease_not_open`,
    );
  });

  test('invariant 9: an end wins over a late "issued" in every interleaving, and nothing but a read-back leaves revoking', () => {
    const events = Object.keys(leaseMachine.live) as LeaseEvent[];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...events), { maxLength: 40 }), (steps) => {
        let state: LeaseState = 'issuing';
        let ended = false;
        for (const event of steps) {
          const result: Outcome<LeaseState> | Refused = transition(leaseMachine, state, event, facts, edge);
          if ('refuse' in result) continue;
          expect(['revoked', 'void']).not.toContain(state);
          if (ended) expect(result.to).not.toBe('live');
          if (state === 'revoking' && result.to !== 'revoking') expect([event, result.to]).toEqual(['gone', 'revoked']);
          // Whatever keeps a lease in revoking asks for another try: it never gives up.
          if (result.to === 'revoking') expect(result.effects).toContain('revoke-at-target');
          ended ||= event === 'end';
          state = result.to;
        }
      }),
    );
  });
});

test('review: closed once, and only when the use is over', () => {
  isExactly(reviewMachine, { grantOver: true }, edge, 'due | close | closed: review.closed\nclosed | close | no: review_not_due');
  isExactly(reviewMachine, { grantOver: false }, edge, 'due | close | no: review_not_due\nclosed | close | no: review_not_due');
});

test('invariant 6: tries are 1, 2, 4 … and then 300 seconds apart, for ever', () => {
  expect([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(nextTryInSeconds)).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
  expect(nextTryInSeconds(0)).toBe(1);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }), (tries) => {
      const seconds = nextTryInSeconds(tries);
      expect(Number.isInteger(seconds) && seconds >= 1 && seconds <= 300).toBe(true);
      expect(nextTryInSeconds(tries + 1)).toBeGreaterThanOrEqual(seconds);
    }),
  );
});
