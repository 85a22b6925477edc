/** A duty: something done again and again, never twice at once, also at once when nudged. A failure is logged and does not end it. */
import type { Logger } from 'pino';

/** What a run answers when there was nothing for it to do, because another process does it. It counts neither as done nor as failed. */
export const elsewhere: unique symbol = Symbol('elsewhere');

export interface Duty {
  /** Do it now, or once more when it is being done. */
  nudge(): void;
  /** When it last ended well; undefined before the first time. */
  lastOk(): Date | undefined;
  stop(): Promise<void>;
}

/**
 * Starts the duty with a first run at once; then every `everyMs` milliseconds after the end of the last run. `work` must end
 * by deadlines of its own. `ended` is told of each run, with the seconds that it took.
 */
export function startDuty(
  log: Logger,
  name: string,
  everyMs: number,
  work: () => Promise<typeof elsewhere | void>,
  ended?: (seconds: number, ok: boolean) => void,
): Duty {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let again = false;
  let stopped = false;
  let lastOk: Date | undefined;
  let failures = 0;

  const run = (): void => {
    clearTimeout(timer);
    if (stopped) return;
    if (running !== undefined) {
      again = true;
      return;
    }
    const began = performance.now();
    const took = (): number => (performance.now() - began) / 1_000;
    running = Promise.resolve()
      .then(work)
      .then((outcome) => {
        if (outcome === elsewhere) return;
        lastOk = new Date();
        ended?.(took(), true);
        if (failures > 0) log.info({ code: 'duty_mended', duty: name, failures }, `${name} works again`);
        failures = 0;
      })
      .catch((error: unknown) => {
        failures++;
        ended?.(took(), false);
        if (failures === 1 || failures % 30 === 0)
          log.error(
            { code: 'duty_failed', duty: name, failures, why: error instanceof Error ? error.message : String(error) },
            `${name} failed; it goes on trying`,
          );
      })
      .finally(() => {
        running = undefined;
        const soon = again && failures === 0;
        again = false;
        if (!stopped) timer = setTimeout(run, soon ? 0 : everyMs);
      });
  };
  run();
  return {
    nudge: run,
    lastOk: () => lastOk,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
