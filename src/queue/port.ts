/**
 * The queue port. A queue makes work prompt; it is never the truth: a lost job is found by the sweep, a repeated or
 * late one changes nothing, because handlers read Postgres again. Every adapter passes `test/support/queue-conformance.ts`.
 */
export type JobKind = 'grant-due' | 'revoke-lease';

export interface Job {
  /** `<kind>-<id>-<epoch>`: the same work has the same id. */
  readonly id: string;
  readonly kind: JobKind;
  /** Work of one lane never waits for that of another: `expiry`, or `target:<name>`. */
  readonly lane: string;
  /** By Postgres' clock. */
  readonly dueAt: Date;
  /** Ids only. */
  readonly subject: string;
  readonly epoch: number;
}

export interface LaneLimits {
  /** Jobs of a lane that run at once. */
  readonly concurrency: number;
  /** After this a job's signal is aborted; a job that ignores it loses its place a second later. */
  readonly deadlineMs: number;
  /** So many of them begin in a second, at most; left out: as many as there are. What is over the rate waits, and is never dropped. */
  readonly perSecond?: number | undefined;
}

export type Handler = (job: Job, signal: AbortSignal) => Promise<void>;

/** What every adapter is made of. */
export interface QueueParts {
  readonly lanes: (lane: string) => LaneLimits;
  /** Postgres' time in milliseconds since 1970, as near as this process knows it. */
  readonly now: () => number;
  /** Told of every job that threw; the job is not run again by the queue. */
  readonly onFailure: (job: Job, error: unknown) => void;
}

export interface LaneDepth {
  readonly lane: string;
  readonly waiting: number;
  readonly running: number;
}

export interface Queue {
  /** Runs the job when it is due, or at once when that is past. A job with the id of one that waits or runs is dropped. */
  add(job: Job): Promise<void>;
  /** Begins to run jobs. */
  start(handler: Handler): void;
  /** Takes no more, and waits at most this long for those that run. */
  stop(withinMs: number): Promise<void>;
  /** While a lane is held, this process begins none of its jobs; they wait, and other processes that share the queue go on with them. */
  hold(lane: string, held: boolean): void;
  /** Jobs that wait, run, and failed so far. */
  depth(): { readonly waiting: number; readonly running: number; readonly failed: number };
  /** The same lane by lane, as far as can be told at once; what Redis holds is shared by all processes. */
  lanes?(): Promise<readonly LaneDepth[]>;
  /** What is wrong with the queue, in words; nothing that keeps access from ending on time. */
  warnings?(): readonly { readonly code: string; readonly message: string }[];
}

/** The id of this work: the epoch makes work that became due again a new job. */
export const jobId = (kind: JobKind, subject: string, epoch: number): string => `${kind}-${subject}-${epoch}`;
