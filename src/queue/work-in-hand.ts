/** The jobs out of Redis that this process is running, each until Redis has let go of its id. */
import type { Handler, Job, QueueParts } from './port.ts';
import { runOne } from './run-one.ts';

export interface WorkInHand {
  /** Whether its handler runs. */
  runs(id: string): boolean;
  /** Resolves when Redis has let go of a job that ran here; at the latest a second after its handler ended. */
  ended(id: string): Promise<void> | undefined;
  /** Runs the handler under its deadline, in milliseconds. Never throws. */
  run(handler: Handler, job: Job, deadlineMs: number): Promise<void>;
  /** Redis has let go of the job. */
  letGo(id: string): void;
  /** Handlers that run. */
  count(): number;
  failed(): number;
  allEnded(): Promise<unknown>;
}

/** So long Redis may take to let go of a job that ended; a Redis that is lost is not waited for. */
const lettingGoMs = 1_000;

/** Nothing in hand yet. `onEnded` is called with the id of each job that Redis has let go of. */
export function workInHand({ onFailure, onEnded }: Pick<QueueParts, 'onFailure'> & { onEnded: (id: string) => void }): WorkInHand {
  const held = new Map<string, { ended: Promise<void>; letGo: () => void; runs: boolean }>();
  let running = 0;
  let failed = 0;
  return {
    runs: (id) => held.get(id)?.runs ?? false,
    ended: (id) => held.get(id)?.ended,
    async run(handler, job, deadlineMs) {
      const gone = Promise.withResolvers<void>();
      const handled = runOne(handler, job, deadlineMs).catch((error: unknown) => {
        failed++;
        onFailure(job, error);
      });
      running++;
      const ended = handled.then(async () => {
        running--;
        one.runs = false;
        const patience = setTimeout(gone.resolve, lettingGoMs);
        await gone.promise;
        clearTimeout(patience);
        if (held.get(job.id) === one) held.delete(job.id);
        onEnded(job.id);
      });
      const one = { ended, letGo: gone.resolve, runs: true };
      held.set(job.id, one);
      await handled;
    },
    letGo: (id) => held.get(id)?.letGo(),
    count: () => running,
    failed: () => failed,
    allEnded: () => Promise.allSettled([...held.values()].map((one) => one.ended)),
  };
}
