/**
 * Puts the virtual clock and the seeded chance where the real code looks for time and chance: timers, `Date`, `performance`,
 * `AbortSignal.timeout`, `randomBytes`, `Math.random`. For a thread that does nothing but simulate; nothing is put back.
 */
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import timersPromises from 'node:timers/promises';
import { beginsAt, type Timer, type World } from './world.ts';

let world: World | undefined;
const deadlines = new WeakMap<AbortSignal, number>();

/** The run that time and chance belong to from now on. */
export function enter(next: World): void {
  world = next;
}

const here = (): World => {
  if (!world) throw new Error('nothing is being simulated');
  return world;
};

/** When a signal of `AbortSignal.timeout` ends, by the virtual clock; whatever its process does. */
export const deadlineOf = (signal: AbortSignal): number | undefined => deadlines.get(signal);

interface Handle {
  readonly timer: Timer;
  unref(): Handle;
  ref(): Handle;
  hasRef(): boolean;
}

function handleOf(timer: Timer): Handle {
  const handle: Handle = { timer, unref: () => handle, ref: () => handle, hasRef: () => true };
  return handle;
}

function startTimer(run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): Handle {
  const at = here();
  return handleOf(at.after(Math.max(1, ms), at.current, () => run(...args)));
}

function stopTimer(handle: Handle | undefined): void {
  if (handle && typeof handle === 'object' && 'timer' in handle) handle.timer.run = undefined;
}

/** Replaces the globals of this thread. */
export function install(): void {
  const RealDate = Date;
  class SimulatedDate extends RealDate {
    constructor(...args: [] | [number | string | Date]) {
      if (args.length === 0) super(SimulatedDate.now());
      else super(...(args as [number]));
    }
    static override now(): number {
      return world ? world.now + (world.current?.skewMs ?? 0) : beginsAt;
    }
  }
  Object.assign(globalThis, { Date: SimulatedDate, setTimeout: startTimer, clearTimeout: stopTimer });
  // A seed's own: what jitter draws must not depend on what ran before.
  Math.random = () => here().random.next();
  performance.now = () => (world ? world.now - beginsAt + 1_000 : 0);
  AbortSignal.timeout = (ms) => {
    const controller = new AbortController();
    deadlines.set(controller.signal, here().now + ms);
    startTimer(() => controller.abort(new Error('no answer in time')), ms);
    return controller.signal;
  };
  Object.assign(timersPromises, { setTimeout: (ms: number) => here().wait(ms) });
  Object.assign(crypto, { randomBytes: (count: number) => here().random.bytes(count) });
  syncBuiltinESMExports();
}
