/**
 * Modelled targets behind the real contract (`src/domain/provider.ts`). They hold objects by their external names, refuse a
 * login at its own end, keep sessions open until these are cut, and do to callers what real ones do: hang, fail before or
 * after the effect, lose the answer, do what was asked when nobody waits any more. What is done there is done though the
 * process that asked is dead by then.
 */
import { issueDeadlineMs } from '../../src/commands/claim-rules.ts';
import { type Gone, type Issued, type LeaseRef, type LeaseSpec, ProviderError, type Target } from '../../src/domain/provider.ts';
import { deadlineOf } from './globals.ts';
import type { World } from './world.ts';

/** `keeps`: the object stays after its end, refused. `drops`: it goes at its end, with its sessions. `again`: gives further credentials. `unlisted`: keeps no list. */
export type Habit = 'keeps' | 'drops' | 'again' | 'unlisted';

export interface Held {
  readonly name: string;
  readonly leaseId: string;
  readonly ours: boolean;
  endsAt: number;
  enabled: boolean;
  secrets: string[];
  sessions: { openedAt: number; closedAt: number | undefined }[];
  readonly madeAt: number;
}

/** What a target tells the checkers at the very moment of an effect. */
export interface Sees {
  made(target: ModelTarget, held: Held): void;
  ending(target: ModelTarget, name: string): void;
  foreignTouched(target: ModelTarget, name: string): void;
}

/** Faults that only a planted bug has: a provider that believes a 2xx, or a sweep that takes what is not ours. */
export interface Leaks {
  readonly believes2xx: boolean;
  readonly sweepsForeign: boolean;
}

export interface ModelTarget extends Target {
  readonly habit: Habit;
  readonly held: Map<string, Held>;
  /** No call ends well before this. */
  awayUntil: number;
  /** Chance that a call goes wrong. */
  trouble: number;
  /** Whether somebody with this secret gets in now. */
  login(name: string, secret: string): boolean;
  /** Lets go what ends by itself. */
  settle(): void;
}

const ownLifeMs = 45_000;
/** What a target says that cut access and could not clean up. */
export const failedAfterCut = 'failed after the cut';
const provenAfterMs = 6_000;

interface Parts {
  readonly world: World;
  readonly name: string;
  readonly habit: Habit;
  readonly held: Map<string, Held>;
  readonly self: () => ModelTarget;
}

function callerOf({ world, name, self }: Parts) {
  const { random } = world;
  /** One call: the effect comes after a while, the answer after another, and either may not. */
  async function call<T>(what: string, signal: AbortSignal, effect: (steps: Steps) => T, latestEffect: number): Promise<T> {
    const away = world.now < self().awayUntil;
    const bad = away || random.chance(self().trouble);
    const fault = !bad
      ? 'none'
      : away && random.chance(0.5)
        ? 'before'
        : random.pick(['before', 'unknown', 'answer-lost', 'hang', 'hang-effect', 'half', 'stays'] as const);
    world.say(() => `${name}.${what}${fault === 'none' ? '' : ` (${fault})`}`);
    if (signal.aborted) throw new ProviderError('target_timeout', `${name} was not asked`, { nothingMade: true });
    if (fault === 'before') {
      await world.wait(random.between(1, 200));
      throw new ProviderError('target_unreachable', `${name} cannot be reached`, { nothingMade: true });
    }
    if (fault === 'unknown' || fault === 'hang') {
      await patience(fault === 'hang' ? 60_000 : random.between(1, 500), signal);
      throw new ProviderError('target_failed', `${name} answered with an error`);
    }
    const took = Math.min(
      fault === 'hang-effect' ? random.between(5_000, 30_000) : random.chance(0.05) ? random.between(500, 4_000) : random.between(1, 60),
      latestEffect - world.now,
    );
    const { promise, resolve } = Promise.withResolvers<{ value: T } | { error: unknown }>();
    const caller = world.current;
    world.after(took, undefined, () => {
      self().settle();
      let outcome: { value: T } | { error: unknown };
      try {
        outcome = { value: effect(fault === 'half' || fault === 'stays' ? fault : 'all') };
      } catch (error) {
        outcome = { error };
      }
      world.after(random.between(0, 20), caller, () => resolve(outcome));
    });
    const outcome = await Promise.race([promise, abortOf(signal)]);
    if (outcome === 'aborted') throw new ProviderError('target_timeout', `${name} gave no answer in time`);
    if (fault === 'answer-lost') throw new ProviderError('target_failed', `the answer of ${name} was lost`);
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  }

  async function patience(ms: number, signal: AbortSignal): Promise<void> {
    await Promise.race([world.wait(ms), abortOf(signal)]);
  }
  return call;
}

function effectsOf({ world, name, habit, held, self }: Parts, sees: Sees, leaks: Leaks) {
  const { random } = world;
  /** When what was denied is proven gone, for the habit `unlisted`. */
  const provenAt = new Map<string, number>();
  const make = (spec: LeaseSpec, again: boolean): Issued => {
    const there = held.get(spec.externalName);
    if (again && !there?.enabled) throw new ProviderError('target_failed', `${spec.externalName} is gone`, { nothingMade: true, leaseGone: true });
    const ends = habit === 'unlisted' ? Math.min(spec.endsAt.getTime(), world.now + ownLifeMs) : spec.endsAt.getTime();
    const secret = `secret-${random.between(0, 1e9)}`;
    const now: Held = there ?? {
      name: spec.externalName,
      leaseId: spec.leaseId,
      ours: true,
      endsAt: ends,
      enabled: true,
      secrets: [],
      sessions: [],
      madeAt: world.now,
    };
    now.endsAt = Math.max(ends, again ? now.endsAt : 0);
    now.secrets = again ? [...now.secrets, secret] : [secret];
    held.set(now.name, now);
    sees.made(self(), now);
    world.say(() => `  ${name} made ${now.name.slice(-6)}, which ends at ${(now.endsAt - world.now) / 1_000} s from now`);
    // One of the targets rounds the end up in what it says, never in what it does.
    const said = habit === 'again' ? now.endsAt + 30_000 : ends;
    return { handle: spec.externalName, expiresAt: new Date(said), connection: {}, secret: { secret } };
  };

  const cut = (object: Held): { at: Date; sessionsCut: number } => {
    object.enabled = false;
    const open = object.sessions.filter((session) => session.closedAt === undefined);
    for (const session of open) session.closedAt = world.now;
    return { at: new Date(world.now), sessionsCut: open.length };
  };

  /** Cut first, then clean up, then read back; a deny that needs time to spread is proven only after it. */
  const end = (ref: LeaseRef, steps: Steps): Gone => {
    sees.ending(self(), ref.externalName);
    const object = held.get(ref.externalName);
    const denied = provenAt.get(ref.externalName);
    if (!object && (denied === undefined || denied <= world.now)) return { cutAt: null, sessionsCut: 0, notes: [] };
    if (object && !object.ours) sees.foreignTouched(self(), object.name);
    const done = object ? cut(object) : { at: new Date(world.now), sessionsCut: 0 };
    world.say(() => `  ${name} cut ${ref.externalName.slice(-6)}${steps === 'all' ? '' : ` (${steps})`}`);
    if (steps === 'half') throw new ProviderError('target_failed', `${name} ${failedAfterCut}`, { cut: done });
    if (steps === 'stays') {
      // It said yes and did nothing; only reading it again can tell.
      if (object) object.enabled = true;
      if (!leaks.believes2xx) throw new ProviderError('target_failed', `${ref.externalName} is still there`);
      return { cutAt: done.at, sessionsCut: done.sessionsCut, notes: [] };
    }
    held.delete(ref.externalName);
    if (habit === 'unlisted' && (denied ?? Number.POSITIVE_INFINITY) > world.now) {
      const proven = denied ?? world.now + provenAfterMs;
      provenAt.set(ref.externalName, proven);
      throw new ProviderError('target_failed', 'not proven yet', { cut: done, pending: true, retryAt: new Date(proven) });
    }
    return { cutAt: done.at, sessionsCut: done.sessionsCut, notes: [] };
  };
  const cutOnly = (ref: LeaseRef, steps: Steps): { at: Date; sessionsCut: number } | null => {
    sees.ending(self(), ref.externalName);
    const object = held.get(ref.externalName);
    if (!object) return null;
    if (!object.ours) sees.foreignTouched(self(), object.name);
    if (steps === 'stays') throw new ProviderError('target_failed', `${ref.externalName} is still in use`);
    world.say(() => `  ${name} cut ${ref.externalName.slice(-6)} and left it there`);
    return cut(object);
  };
  return { make, cut, cutOnly, end };
}

/** A target of this habit; it is well until `trouble` or `awayUntil` say otherwise. */
export function targetOf(world: World, name: string, habit: Habit, sees: Sees, leaks: Leaks): ModelTarget {
  const held = new Map<string, Held>();
  const parts: Parts = { world, name, habit, held, self: () => target };
  const call = callerOf(parts);
  const { make, cut, cutOnly, end } = effectsOf(parts, sees, leaks);

  /** Nothing that was asked for can appear later than a second after the deadline. */
  const latest = (signal: AbortSignal): number => (deadlineOf(signal) ?? world.now + issueDeadlineMs) + 1_000;

  const target: ModelTarget = {
    name,
    kind: habit,
    habit,
    held,
    awayUntil: 0,
    trouble: 0,
    limits: { newLogin: { alive: 0, dead: 0 }, openSession: { alive: 60, dead: null } },
    unlisted: habit === 'unlisted',
    check: async () => [],
    describe: (_, signal) => call('describe', signal, () => ({ summary: `what ${name} opens`, details: [] }), Number.POSITIVE_INFINITY),
    issue: (spec, signal) => call(`issue ${spec.externalName.slice(-6)}`, signal, () => make(spec, false), latest(signal)),
    ...(habit === 'again' || habit === 'unlisted'
      ? { another: (spec: LeaseSpec, signal: AbortSignal) => call(`another ${spec.externalName.slice(-6)}`, signal, () => make(spec, true), latest(signal)) }
      : {}),
    inspect: ({ externalName }, signal) =>
      call(
        'inspect',
        signal,
        () => {
          const object = held.get(externalName);
          return object ? { state: 'present', usable: object.enabled, expiresAt: new Date(object.endsAt), openSessions: null } : { state: 'absent' };
        },
        Number.POSITIVE_INFINITY,
      ),
    ...(habit === 'keeps'
      ? {
          cut: (ref: LeaseRef, signal: AbortSignal) =>
            call(`cut ${ref.externalName.slice(-6)}`, signal, (steps) => cutOnly(ref, steps), Number.POSITIVE_INFINITY),
        }
      : {}),
    revoke: (ref, signal) => call(`revoke ${ref.externalName.slice(-6)}`, signal, (steps) => end(ref, steps), Number.POSITIVE_INFINITY),
    sweep: (signal) =>
      call(
        'sweep',
        signal,
        () => {
          if (habit === 'unlisted') return [];
          return [...held.values()]
            .filter((object) => object.ours || leaks.sweepsForeign)
            .map((object) => ({ leaseId: object.leaseId, externalName: object.name }));
        },
        Number.POSITIVE_INFINITY,
      ),
    close: async () => undefined,
    login(external, secret) {
      target.settle();
      const object = held.get(external);
      if (!object?.enabled || world.now >= object.endsAt || !object.secrets.includes(secret)) return false;
      object.sessions.push({ openedAt: world.now, closedAt: undefined });
      return true;
    },
    settle() {
      if (habit !== 'drops' && habit !== 'unlisted') return;
      for (const object of held.values()) {
        if (!object.ours || world.now < object.endsAt) continue;
        cut(object);
        held.delete(object.name);
      }
    },
  };
  return target;
}

type Steps = 'all' | 'half' | 'stays';

function abortOf(signal: AbortSignal): Promise<'aborted'> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve('aborted');
    else signal.addEventListener('abort', () => resolve('aborted'), { once: true });
  });
}
