/**
 * One reading for many who ask at once. Nobody is given what was read before they asked: while one reading runs, those who
 * come wait for the next one, which they share. So a claim still compares what stands at the target *now*.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** One reading that is stuck keeps the others this long. */
const patienceMs = 500;

/** Wraps `read`. For a key it runs once at a time (again beside one that takes longer than half a second), with a signal of its own (`deadlineMs`); each caller waits no longer than its own signal, and then `late` is thrown. */
export function together<T>(
  read: (key: string, signal: AbortSignal) => Promise<T>,
  deadlineMs: number,
  late: (key: string) => Error,
): (key: string, signal: AbortSignal) => Promise<T> {
  const running = new Map<string, Promise<T>>();
  const waiting = new Map<string, Promise<T>>();
  const start = (key: string): Promise<T> => {
    const reading = read(key, AbortSignal.timeout(deadlineMs)).finally(() => {
      if (running.get(key) === reading) running.delete(key);
    });
    running.set(key, reading);
    return reading;
  };
  const next = (key: string): Promise<T> => {
    const now = running.get(key);
    if (!now) return start(key);
    const shared =
      waiting.get(key) ??
      Promise.race([now.catch(() => undefined), sleep(patienceMs, undefined, { ref: false })]).then(() => {
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
