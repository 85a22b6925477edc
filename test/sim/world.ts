/**
 * Time and order of a simulated run. Everything that takes time is an event; events run one after the other in the order
 * of the virtual clock, and between two of them every promise that can go on has gone on. An event belongs to a process,
 * or to the world outside: those of a dead process never run, those of a paused one run when it wakes, with what it then remembers.
 */
import { type Random, randomOf } from './random.ts';

/** One life of a process: after a crash it is another. */
export interface Proc {
  readonly name: string;
  dead: boolean;
  pausedUntil: number;
  /** Its wall clock less the store's, in milliseconds. */
  skewMs: number;
}

export interface Timer {
  at: number;
  readonly order: number;
  readonly proc: Proc | undefined;
  run: (() => void) | undefined;
}

/** An invariant that does not hold. It ends the run. */
export class Broken extends Error {
  readonly invariant: string;
  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

/** Milliseconds since 1970 at which every run begins. */
export const beginsAt = Date.UTC(2030, 0, 1);
const traceAtMost = 4_000;

export class World {
  readonly seed: number;
  readonly random: Random;
  readonly trace: string[] | undefined;
  now = beginsAt;
  current: Proc | undefined;
  /** The chance that a statement lets others come in between. */
  chatter = 0.2;
  broken: Broken | undefined;
  events = 0;
  #order = 0;
  readonly #heap: Timer[] = [];

  constructor(seed: number, traced: boolean) {
    this.seed = seed;
    this.random = randomOf(seed);
    this.trace = traced ? [] : undefined;
  }

  /** A line of the trace, which exists only in a replay. */
  say(line: () => string): void {
    if (!this.trace) return;
    this.trace.push(`${((this.now - beginsAt) / 1_000).toFixed(3).padStart(8)} ${(this.current?.name ?? '-').padEnd(5)} ${line()}`);
    if (this.trace.length > traceAtMost) this.trace.shift();
  }

  /** Writes the first broken invariant down; the run ends after this event. */
  breaks(invariant: string, message: string): undefined {
    this.say(() => `BROKEN ${invariant}: ${message}`);
    this.broken ??= new Broken(invariant, message);
  }

  /** Runs `run` after so many milliseconds, as part of this process; of the world outside when there is none. */
  after(ms: number, proc: Proc | undefined, run: () => void): Timer {
    const timer: Timer = { at: this.now + Math.max(0, Math.ceil(ms)), order: this.#order++, proc, run };
    this.#push(timer);
    return timer;
  }

  /** Resolves after so many milliseconds, in the process that is running. */
  wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.after(ms, this.current, resolve);
    return promise;
  }

  /** One event, and everything that follows from it at once; to be called from a microtask only. False when there is none before `until`. */
  async step(until: number): Promise<boolean> {
    const timer = this.#heap[0];
    if (!timer || timer.at > until) {
      this.now = until;
      return false;
    }
    this.#pop();
    const { proc, run } = timer;
    if (!run || proc?.dead) return true;
    if (proc && proc.pausedUntil > timer.at) {
      timer.at = proc.pausedUntil;
      this.#push(timer);
      return true;
    }
    this.now = timer.at;
    this.current = proc;
    this.events++;
    run();
    // A tick comes after every promise that can go on has gone on.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    this.current = undefined;
    return true;
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!before(timer, heap[above] as Timer)) break;
      heap[at] = heap[above] as Timer;
      at = above;
    }
    heap[at] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Timer;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && before(heap[below + 1] as Timer, heap[below] as Timer)) below++;
      if (!before(heap[below] as Timer, last)) break;
      heap[at] = heap[below] as Timer;
      at = below;
    }
    heap[at] = last;
  }
}

const before = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);
