/**
 * One simulated run: a house, people, and everything that may go wrong, all out of one seed; then the faults are healed, time
 * runs on, and everything that is due must come to its end. The invariants are judged at every step and at the end.
 */
import { enter } from './globals.ts';
import { type House, houseOf } from './house.ts';
import { type Credential, type Crowd, crowdOf } from './people.ts';
import type { Plant } from './planted.ts';
import type { Sees } from './target.ts';
import { type GrantRow, type Judged, judgeCommit, type LeaseRow, type RequestRow } from './watch-commit.ts';
import { type Broken, beginsAt, World } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly broken: Broken | undefined;
  readonly trace: readonly string[];
  readonly events: number;
  readonly simulatedSeconds: number;
  /** Two runs that differ anywhere end with different draws: below 2^32. */
  readonly fingerprint: number;
  /** How much happened, so that a run in which nothing does cannot look well. */
  readonly counts: Readonly<Record<string, number>>;
}

/** A session may stay open so long after its grant's end while Halligan lives (invariant 2). */
const liveBoundMs = 60_000;
/** After the faults are over, everything that is due ends within this: the longest pause between two tries, and a round of reconcile. */
const healedWithinMs = 380_000;

/** Runs one seed to its end, or to the first broken invariant. */
export async function runSeed(seed: number, plant: Plant | undefined, traced: boolean): Promise<Outcome> {
  // From here on this is a microtask, and a tick comes after all of them (see `World.step`).
  await undefined;
  const world = new World(seed, traced);
  enter(world);
  const { random } = world;
  world.chatter = random.pick([0.03, 0.1, 0.3]);
  const sees = seesOf(() => house);
  const house: House = houseOf(world, {
    sees,
    leaks: { believes2xx: plant?.model === 'believes-2xx', sweepsForeign: plant?.model === 'sweeps-foreign' },
    without: plant?.without ?? [],
    aliasIsAPerson: plant?.model === 'alias-is-a-person',
  });
  const { store } = house;
  const left: { at: number; personId: string; groups: readonly string[] }[] = [];
  const judged: Judged = {
    world,
    store,
    entitlements: house.policy.entitlements,
    humanOf: house.humanOf,
    groupsSince: (person, since) => [...person.groups, ...left.flatMap(({ at, personId, groups }) => (personId === person.id && at >= since ? groups : []))],
    presentAt: (lease) => house.targets.get(lease.target)?.held.get(lease.external_name)?.ours ?? false,
  };
  store.onCommit = (tx) => {
    for (const event of tx.events) world.say(() => `committed ${event.type} ${(event.lease ?? event.grant ?? event.request ?? '').slice(-6)}`);
    for (const { table, before } of tx.writes)
      if (table === 'person' && before) left.push({ at: world.now, personId: before.id, groups: before['groups'] as string[] });
    judgeCommit(judged, tx);
  };
  const crowd = crowdOf(
    house,
    (credential, holder) => judgeAnswer(house, credential, holder),
    (credential) => judgeLogin(house, credential),
  );
  const places = random.between(1, 3);
  for (let place = 0; place < places; place++) house.start(place);
  const foreign = addForeign(house);

  const chaosEndsAt = beginsAt + random.between(40, 110) * 1_000;
  unleash(house, crowd, places, chaosEndsAt);
  await runTo(world, chaosEndsAt, () => judgeTargets(house, undefined));
  if (!world.broken) await heal(house, places, chaosEndsAt, foreign);
  const counts: Record<string, number> = {};
  for (const event of store.log) counts[event.type] = (counts[event.type] ?? 0) + 1;
  counts['answers'] = crowd.credentials.length;
  return {
    seed,
    broken: world.broken,
    trace: world.trace ?? [],
    events: world.events,
    simulatedSeconds: (world.now - beginsAt) / 1_000,
    fingerprint: random.between(0, 0xffff_ffff),
    counts,
  };
}

/** Steps until then; `judge` looks once in a second. */
async function runTo(world: World, until: number, judge: () => void): Promise<void> {
  let nextLook = world.now;
  while (!world.broken) {
    if (!(await world.step(until))) return;
    if (world.now < nextLook) continue;
    nextLook = world.now + 1_000;
    judge();
  }
}

/** What is judged at the very moment at which something happens at a target. */
function seesOf(house: () => House): Sees {
  return {
    made(target, held) {
      const { store, world } = house();
      const lease = store.rows<LeaseRow>('lease').find((row) => row.external_name === held.name);
      if (!lease) return world.breaks('4', `${target.name} made ${held.name}, and no committed row has that name`);
      const grant = store.row<GrantRow>('access_grant', lease.grant_id);
      if (!grant || held.endsAt > grant.ends_at.getTime()) world.breaks('1', `${held.name} lasts longer at ${target.name} than its grant, with Halligan dead`);
    },
    ending(target, name) {
      const { store, world } = house();
      const lease = store.rows<LeaseRow>('lease').find((row) => row.external_name === name);
      if (lease && (lease.state === 'live' || lease.state === 'issuing'))
        world.breaks('6', `${name} is ended at ${target.name} although its lease is ${lease.state}`);
    },
    foreignTouched: (target, name) => house().world.breaks('6', `${name} at ${target.name} does not bear our marker, and was ended`),
  };
}

/** Somebody got an answer with a secret: its owner, after the reveal was committed. */
function judgeAnswer({ world, store }: House, credential: Credential, person: string): void {
  const lease = store.row<LeaseRow>('lease', credential.lease);
  const grant = lease && store.row<GrantRow>('access_grant', lease.grant_id);
  if (grant?.person_id !== person) world.breaks('23', `a credential of ${credential.lease} was given to somebody else than its holder`);
  if (!store.log.some((event) => event.type === 'lease.revealed' && event.lease === credential.lease))
    world.breaks('19', `a credential of ${credential.lease} was shown before that was committed`);
}

function judgeLogin({ world, store }: House, credential: Credential): void {
  const lease = store.row<LeaseRow>('lease', credential.lease);
  const grant = lease && store.row<GrantRow>('access_grant', lease.grant_id);
  world.say(() => `the holder of ${credential.lease.slice(-6)} gets in at ${credential.target}`);
  if (!grant || world.now >= grant.ends_at.getTime()) world.breaks('1', `a login as ${credential.name} worked after the grant's end`);
  if (lease?.state === 'revoked') world.breaks('5', `a login as ${credential.name} worked although its lease is revoked`);
}

/** Once in a second: everything that targets hold is explained, and over when its grant is. */
function judgeTargets({ world, store, targets }: House, healedAt: number | undefined): undefined {
  for (const target of targets.values()) {
    target.settle();
    for (const held of target.held.values()) {
      if (!held.ours) continue;
      const lease = store.rows<LeaseRow>('lease').find((row) => row.external_name === held.name);
      const grant = lease && store.row<GrantRow>('access_grant', lease.grant_id);
      if (!lease || !grant) return world.breaks('4', `${target.name} holds ${held.name}, which no row explains`);
      if (held.enabled && held.endsAt > grant.ends_at.getTime()) world.breaks('1', `${held.name} can be used after its grant's end`);
      if (lease.state === 'revoked' || lease.state === 'void') world.breaks('5', `${target.name} holds ${held.name}, and its lease is ${lease.state}`);
      const due = grant.ends_at.getTime();
      if (healedAt !== undefined && due > healedAt && world.now > due + liveBoundMs && held.sessions.some((session) => session.closedAt === undefined))
        world.breaks('2', `a session of ${held.name} is open ${liveBoundMs / 1_000} s after its grant's end, with Halligan alive`);
    }
  }
}

/** Objects that others made, which must outlive everything. */
function addForeign({ world, targets }: House): number {
  let count = 0;
  for (const target of targets.values()) {
    const name = `somebody-elses-${target.name}`;
    target.held.set(name, {
      name,
      leaseId: 'none',
      ours: false,
      endsAt: Number.POSITIVE_INFINITY,
      enabled: true,
      secrets: [],
      sessions: [],
      madeAt: world.now,
    });
    count++;
  }
  return count;
}

/** Everything that may go wrong, each with a temper that the seed gives this run. */
function unleash(house: House, crowd: Crowd, places: number, until: number): void {
  const { world, store, targets, queue } = house;
  const { random } = world;
  const often = (leastMs: number, mostMs: number, deed: () => void): void => {
    const next = (): void => {
      if (world.now >= until - 1) return;
      world.after(random.between(leastMs, mostMs), undefined, () => {
        if (world.now < until) deed();
        next();
      });
    };
    next();
  };
  const temper = random.pick([0, 0.3, 1, 1, 2]);
  store.commitTrouble = random.pick([0, 0.01, 0.04]);
  queue.trouble = random.pick([0, 0.1, 0.5]);
  for (const target of targets.values()) target.trouble = random.pick([0, 0.05, 0.3]);
  const pace = random.pick([300, 900, 2_000]);
  often(20, pace, () => crowd.act());
  often(100, 1_500, () => crowd.tryOne());
  if (temper === 0) return;
  const place = (): number => random.between(0, places - 1);
  const rare = 30_000 / temper;
  often(2_000, rare, () => {
    const at = place();
    house.kill(at);
    const back = random.chance(0.8) ? random.between(200, 8_000) : 30_000;
    world.after(back, undefined, () => house.servers[at]?.proc.dead && house.start(at));
  });
  often(3_000, rare, () => house.pause(place(), random.chance(0.4) ? 60_000 : random.between(500, 20_000)));
  often(10_000, rare * 2, () => {
    world.say(() => 'the store restarts');
    store.restart(random.between(50, 6_000));
  });
  often(4_000, rare, () => {
    const target = random.pick([...targets.values()]);
    target.awayUntil = world.now + random.between(1_000, 30_000);
    world.say(() => `${target.name} is away for ${(target.awayUntil - world.now) / 1_000} s`);
  });
  often(5_000, rare * 2, () => {
    const server = random.pick(house.servers);
    server.proc.skewMs = random.between(-600_000, 600_000);
    world.say(() => `the clock of ${server.proc.name} steps`);
  });
  often(3_000, rare, () => queue.flush());
  often(500, 6_000, () => queue.forge([...store.rows('lease'), ...store.rows('access_grant')].map((row) => row.id)));
  often(8_000, rare * 2, () => {
    // Somebody takes an object away at its target.
    const target = random.pick([...targets.values()]);
    const ours = [...target.held.values()].filter((held) => held.ours);
    if (ours.length > 0) target.held.delete(random.pick(ours).name);
  });
}

async function heal(house: House, places: number, healedAt: number, foreign: number): Promise<void> {
  const { world, store, targets, queue } = house;
  world.say(() => 'the faults are over');
  store.commitTrouble = 0;
  store.downUntil = 0;
  queue.trouble = 0;
  for (const target of targets.values()) {
    target.trouble = 0;
    target.awayUntil = 0;
  }
  for (let place = 0; place < places; place++) {
    const proc = house.servers[place]?.proc;
    if (proc) proc.pausedUntil = Math.min(proc.pausedUntil, world.now);
    if (!proc || proc.dead) house.start(place);
  }
  // Whatever the queue held is lost once more: nothing may depend on it.
  queue.flush();
  const ends = [
    ...store.rows<GrantRow>('access_grant').map((grant) => grant.ends_at.getTime()),
    ...store.rows<RequestRow>('request').map((request) => request.lapses_at.getTime()),
  ];
  const until = Math.max(world.now, ...ends) + healedWithinMs;
  while (!world.broken && world.now < until && !isQuiet(house)) await runTo(world, Math.min(until, world.now + 5_000), () => judgeTargets(house, healedAt));
  if (!world.broken) judgeEnd(house, foreign);
}

/** Nothing is open, due or held any more. */
const isQuiet = ({ store, targets }: House): boolean =>
  store.rows('lease').every((row) => row['state'] === 'revoked' || row['state'] === 'void') &&
  store.rows('access_grant').every((row) => row['state'] === 'ended' || row['state'] === 'cancelled') &&
  store.rows('request').every((row) => row['state'] !== 'pending') &&
  store.rows('outbox').length === 0 &&
  [...targets.values()].every((target) => [...target.held.values()].every((held) => !held.ours));

function judgeEnd({ world, store, targets }: House, foreign: number): void {
  for (const row of store.rows<GrantRow>('access_grant'))
    if (row.state === 'active' || row.state === 'scheduled') world.breaks('8', `at the end the grant ${row.id} is ${row.state}, long past its time`);
  for (const row of store.rows<LeaseRow>('lease'))
    if (row.state !== 'revoked' && row.state !== 'void') world.breaks('6', `at the end the lease ${row.id} is ${row.state}, after ${row.tries} tries`);
  for (const target of targets.values())
    for (const held of target.held.values()) if (held.ours) world.breaks('5', `at the end ${target.name} still holds ${held.name}`);
  for (const row of store.rows<GrantRow>('access_grant'))
    if (row.state !== 'ended' && row.state !== 'cancelled') world.breaks('8', `at the end the grant ${row.id} is ${row.state}`);
  for (const row of store.rows<RequestRow>('request'))
    if (row.state === 'pending') world.breaks('14', `at the end the request ${row.id} is pending, long past its time`);
  if (store.rows('outbox').length > 0) world.breaks('8', 'at the end the outbox is not empty');
  const left = [...targets.values()].flatMap((target) => [...target.held.values()].filter((held) => !held.ours && held.enabled)).length;
  if (left !== foreign) world.breaks('6', 'something that others made at a target is gone');
}
