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
}

export type Handler = (job: Job, signal: AbortSignal) => Promise<void>;

export interface Queue {
  /** Runs the job when it is due, or at once when that is past. A job with the id of one that waits or runs is dropped. */
  add(job: Job): Promise<void>;
  /** Begins to run jobs. */
  start(handler: Handler): void;
  /** Takes no more, and waits at most this long for those that run. */
  stop(withinMs: number): Promise<void>;
  /** Jobs that wait, run, and failed so far. */
  depth(): { readonly waiting: number; readonly running: number; readonly failed: number };
}

/** The id of this work: the epoch makes work that became due again a new job. */
export const jobId = (kind: JobKind, subject: string, epoch: number): string => `${kind}-${subject}-${epoch}`;
