/** What a process says of itself when a probe asks. */
import type pg from 'pg';
import type { Sealer } from '../audit/seal.ts';
import type { Workers } from './start-workers.ts';

/** What is wrong, by its code and in a sentence. */
export interface Said {
  readonly code: string;
  readonly message: string;
}

/** What the process knows of itself without asking anybody: faults first, then what people should look at. */
export function troublesOf(sealer: Sealer, workers: Workers | undefined): Said[] {
  const telling = (workers?.tellingFails() ?? []).map((why) => ({ code: 'telling_fails', message: `Messages do not go out: ${why}` }));
  return [...faultsOf(sealer, workers), ...(workers?.queue.warnings?.() ?? []), ...telling];
}

function faultsOf(sealer: Sealer, workers: Workers | undefined): Said[] {
  const { refused } = sealer.status();
  return [
    ...(refused ? [{ code: refused.code, message: refused.message }] : []),
    ...(workers?.late() ?? []).map((duty) => ({ code: 'duty_late', message: `${duty} has not ended well for 90 s.` })),
  ];
}

/** Faults make a process not ready; warnings are for people, and keep nobody from using it. */
export async function readHealth(
  pool: pg.Pool,
  sealer: Sealer,
  workers: Workers | undefined,
  watch: { warnings(): readonly Said[] },
): Promise<{ ready: boolean; faults: readonly Said[]; warnings: readonly Said[] }> {
  const faults: Said[] = [];
  try {
    await Promise.race([pool.query('SELECT 1'), new Promise((_, reject) => setTimeout(() => reject(new Error('no answer within 3 s')), 3_000).unref())]);
  } catch (error) {
    faults.push({ code: 'database_unavailable', message: `The database does not answer: ${(error as Error).message}` });
  }
  faults.push(...faultsOf(sealer, workers));
  return { ready: faults.length === 0, faults, warnings: [...(workers?.queue.warnings?.() ?? []), ...watch.warnings()] };
}
