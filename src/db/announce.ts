/**
 * Tells other processes, by NOTIFY, what has changed. It happens after the commit and in a transaction of its own, a few
 * times a second at most: a NOTIFY inside a business transaction makes all commits of the server wait for each other.
 * A lost announcement costs promptness only; the sweeps find everything.
 */
import type pg from 'pg';

/** What a commit changed, for those who wait for it. */
export interface Change {
  /** Something stands in the outbox. */
  readonly outbox: boolean;
  /** Requests of which something happened. */
  readonly requests: readonly string[];
  /** All that is new is who has been told: pages show it, and nobody is to be told of it. */
  readonly onlyTold?: boolean;
}

/** The channel of the announcements. */
export const changesChannel = 'halligan_changes';

const gatherMs = 50;
const requestsAtMost = 50;

/** Gathers changes and announces them together. `onError` hears of announcements that failed. */
export function announcer(pool: pg.Pool, onError: (error: Error) => void): (change: Change) => void {
  let outbox = false;
  let requests = new Set<string>();
  let gathering = false;
  let onlyTold = true;
  const announce = (): void => {
    gathering = false;
    const note = JSON.stringify({ outbox, requests: [...requests].slice(0, requestsAtMost), onlyTold } satisfies Change);
    outbox = false;
    onlyTold = true;
    requests = new Set();
    pool.query('SELECT pg_notify($1, $2)', [changesChannel, note]).catch(onError);
  };
  return (change) => {
    outbox ||= change.outbox;
    onlyTold &&= change.onlyTold ?? false;
    for (const request of change.requests) requests.add(request);
    if (gathering) return;
    gathering = true;
    setTimeout(announce, gatherMs).unref();
  };
}
