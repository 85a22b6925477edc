/** What a job looks like in Redis, and whether something found there is one: nothing is taken from it but ids, an epoch and a time. */
import { type Job, type JobKind, jobId } from './port.ts';

/** BullMQ's name of a lane: no colon, and in braces, so that a Redis Cluster keeps all keys of a lane together. */
export const laneName = (lane: string): string => `{${lane.replaceAll(':', '.')}}`;

/** The data of a job: its id says the kind, its queue the lane. `due` is in milliseconds since 1970, by Postgres' clock. */
export const payloadOf = (job: Job): { subject: string; epoch: number; due: number } => ({
  subject: job.subject,
  epoch: job.epoch,
  due: job.dueAt.getTime(),
});

const kinds: ReadonlySet<string> = new Set<JobKind>(['grant-due', 'revoke-lease']);
const longestMs = 8_640_000_000_000_000;

/** The job that was found in this lane; undefined when it has not the form of one of ours. */
export function jobIn(lane: string, found: { id?: string | undefined; name: string; data: unknown }): Job | undefined {
  const { id, name, data } = found;
  if (!kinds.has(name) || typeof data !== 'object' || data === null) return undefined;
  const kind = name as JobKind;
  const { subject, epoch, due } = data as Record<string, unknown>;
  if (typeof subject !== 'string' || !/^[\w-]{1,100}$/.test(subject)) return undefined;
  if (typeof epoch !== 'number' || !Number.isSafeInteger(epoch) || epoch < 0) return undefined;
  if (typeof due !== 'number' || !(Math.abs(due) <= longestMs)) return undefined;
  if (id !== jobId(kind, subject, epoch)) return undefined;
  return { id, kind, lane, dueAt: new Date(due), subject, epoch };
}
