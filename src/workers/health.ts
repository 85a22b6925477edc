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
  return [...faultsOf(sealer, workers), ...(workers?.queue.warnings?.() ?? []), ...lostOf(workers), ...telling];
}

/** Targets that do not answer, since when, and when they are tried next. */
function lostOf(workers: Workers | undefined): Said[] {
  return (workers?.lostTargets() ?? []).map(({ target, since, nextTryAt, why }) => {
    const next = nextTryAt ? `the next try is at ${nextTryAt.toISOString()}` : 'it is being tried now';
    return { code: 'target_lost', message: `${target} has not answered since ${since.toISOString()}; ${next}: ${why}` };
  });
}

/** A log that is shorter than the published one means quarantine (quarantine.ts), in which people must be able to reach us. */
const quarantines = (code: string): boolean => code === 'published_ahead';

function faultsOf(sealer: Sealer, workers: Workers | undefined): Said[] {
  const { refused } = sealer.status();
  return [
    ...(refused && !quarantines(refused.code) ? [{ code: refused.code, message: refused.message }] : []),
    ...(workers?.late() ?? []).map((duty) => ({ code: 'duty_late', message: `${duty} has not ended well for 90 s.` })),
  ];
}

/** Faults make a process not ready; warnings are for people, and keep nobody from using it. */
export async function readHealth(
  pool: pg.Pool,
  sealer: Sealer,
  workers: Workers | undefined,
  watch: { warnings(): readonly Said[]; faults(): readonly Said[] },
): Promise<{ ready: boolean; faults: readonly Said[]; warnings: readonly Said[] }> {
  const faults: Said[] = [];
  const warnings: Said[] = [];
  try {
    const asked = pool.query<{ on: boolean }>('SELECT EXISTS (SELECT FROM quarantine WHERE lifted_at IS NULL) AS on');
    const answer = await Promise.race([asked, new Promise<never>((_, reject) => setTimeout(() => reject(new Error('no answer within 3 s')), 3_000).unref())]);
    if (answer.rows[0]?.on)
      warnings.push({ code: 'quarantined', message: 'Nothing is opened after a restore, until an admin lifts the quarantine: halligan quarantine.' });
  } catch (error) {
    faults.push({ code: 'database_unavailable', message: `The database does not answer: ${(error as Error).message}` });
  }
  faults.push(...watch.faults(), ...faultsOf(sealer, workers));
  return { ready: faults.length === 0, faults, warnings: [...warnings, ...(workers?.queue.warnings?.() ?? []), ...lostOf(workers), ...watch.warnings()] };
}
