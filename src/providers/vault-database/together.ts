/**
 * One reading for many who ask at once. Nobody is given what was read before they asked: while one reading runs, those who
 * come wait for the next one, which they share. So a claim still compares what stands at the target *now*.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** One reading that is stuck keeps the others this long. */
const patienceMs = 500;
/** From the start of one reading to that of the next. Readings that follow each other at once are shared by few, and their cost slows the claims that wait for them. */
const usuallyApartMs = 8;

/**
 * Wraps `read`. For a key it runs once at a time (again beside one that takes longer than half a second) and begins no sooner than
 * `apartMs` after the one before began, with a signal of its own (`deadlineMs`); each caller waits no longer than its own signal,
 * and then `late` is thrown.
 */
export function together<T>(
  read: (key: string, signal: AbortSignal) => Promise<T>,
  deadlineMs: number,
  late: (key: string) => Error,
  apartMs = usuallyApartMs,
): (key: string, signal: AbortSignal) => Promise<T> {
  const running = new Map<string, Promise<unknown>>();
  const waiting = new Map<string, Promise<T>>();
  const start = (key: string): Promise<T> => {
    const reading = read(key, AbortSignal.timeout(deadlineMs));
    const over = Promise.allSettled([reading, sleep(apartMs, undefined, { ref: false })]).then(() => {
      if (running.get(key) === over) running.delete(key);
    });
    running.set(key, over);
    return reading;
  };
  const next = (key: string): Promise<T> => {
    const now = running.get(key);
    if (!now) return start(key);
    const shared =
      waiting.get(key) ??
      Promise.race([now, sleep(patienceMs, undefined, { ref: false })]).then(() => {
        waiting.delete(key);
        return start(key);
      });
    waiting.set(key, shared);
    return shared;
  };
  return (key, signal) =>
    new Promise((resolve, reject) => {
      const stop = () => reject(late(key));
      if (signal.aborted) return stop();
      signal.addEventListener('abort', stop, { once: true });
      next(key)
        .then(resolve, reject)
        .finally(() => signal.removeEventListener('abort', stop));
    });
}
