/** Many jobs at once, as a sweep finds them: on Redis one after the other would take seconds for thousands. */
import type { Job, Queue } from './port.ts';

/** So many are on their way to Redis at the same moment. */
const atOnce = 200;

/** Adds every job, in order as far as the queue keeps it, until `goOn` says no. */
export async function addAll(queue: Pick<Queue, 'add'>, jobs: readonly Job[], goOn: () => boolean = () => true): Promise<void> {
  for (let from = 0; from < jobs.length && goOn(); from += atOnce) await Promise.all(jobs.slice(from, from + atOnce).map((job) => queue.add(job)));
}
