/**
 * `npm run test:sim`: seeds of the simulation, 10,000 unless told, spread over two threads.
 *
 *   --seeds N    so many          --from N     beginning with this one
 *   --seed N     one, with its trace (a failing one replays exactly)
 *   --planted    each planted bug until it is found
 *   --plant X    with this planted bug in, for a look at how it is found
 *
 * The last line is `N passed, N failed`: seeds, or planted bugs.
 */
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { invariants } from './invariants.ts';
import { type Plant, plants } from './planted.ts';
import type { Done, Work } from './worker.ts';

const { values } = parseArgs({
  options: { seeds: { type: 'string' }, from: { type: 'string' }, seed: { type: 'string' }, planted: { type: 'boolean' }, plant: { type: 'string' } },
});
const threads = 2;
const chunk = 50;
const failuresShown = 10;

function number(name: 'seeds' | 'from' | 'seed', otherwise: number): number {
  const given = values[name];
  if (given === undefined) return otherwise;
  if (/^\d{1,9}$/.test(given)) return Number(given);
  console.error(`--${name} takes a whole number, not ${JSON.stringify(given)}`);
  process.exit(2);
}

/** A thread and a way to send it work. It throws what keeps the thread from starting. */
function threadOf(plant?: string): { run(work: Work): Promise<Done>; end(): Promise<unknown> } {
  const worker = new Worker(new URL('worker.ts', import.meta.url), { workerData: { plant } });
  return {
    run: (work) =>
      new Promise((resolve, reject) => {
        const off = (): void => {
          worker.off('message', answered).off('error', failed);
        };
        const answered = (done: Done): void => {
          off();
          resolve(done);
        };
        const failed = (error: Error): void => {
          off();
          reject(error);
        };
        worker.on('message', answered).on('error', failed).postMessage(work);
      }),
    end: () => worker.terminate(),
  };
}

const inWords = (invariant: string): string =>
  invariant === 'unforeseen' ? (invariants[invariant] ?? '') : `invariant ${invariant}: ${invariants[invariant] ?? ''}`;

async function replay(seed: number): Promise<boolean> {
  const thread = threadOf(values.plant);
  const { failure, events, fingerprint } = await thread.run({ from: seed, count: 1, traced: true });
  await thread.end();
  for (const line of failure?.trace ?? []) console.log(line);
  if (!failure?.invariant) {
    console.log(`\nseed ${seed}: ${events} steps, every invariant held, fingerprint ${fingerprint}`);
    return true;
  }
  console.log(`\nseed ${seed}: ${inWords(failure.invariant)}\n  ${failure.message}`);
  return false;
}

interface Totals {
  ran: number;
  failed: number;
  events: number;
  simulatedSeconds: number;
  fingerprint: number;
  readonly counts: Record<string, number>;
}

async function runSeeds(from: number, count: number): Promise<Totals> {
  const totals: Totals = { ran: 0, failed: 0, events: 0, simulatedSeconds: 0, fingerprint: 0, counts: {} };
  const ends = from + count;
  let next = from;
  const work = async (): Promise<void> => {
    const thread = threadOf(values.plant);
    while (next < ends) {
      let first = next;
      const until = Math.min(ends, first + chunk);
      next = until;
      while (first < until) {
        const done = await thread.run({ from: first, count: until - first, traced: false });
        first += Math.max(1, done.ran);
        totals.ran += Math.max(1, done.ran);
        totals.events += done.events;
        totals.simulatedSeconds += done.simulatedSeconds;
        totals.fingerprint = (totals.fingerprint + done.fingerprint) % 2 ** 32;
        for (const [what, times] of Object.entries(done.counts)) totals.counts[what] = (totals.counts[what] ?? 0) + times;
        if (!done.failure) continue;
        totals.failed++;
        const { seed, invariant, message } = done.failure;
        if (totals.failed <= failuresShown)
          console.log(`seed ${seed}: ${inWords(invariant)}\n  ${message}\n  again, with its trace: npm run test:sim -- --seed ${seed}`);
      }
    }
    await thread.end();
  };
  await Promise.all(Array.from({ length: threads }, work));
  return totals;
}

interface Found {
  readonly plant: Plant;
  readonly by: string | undefined;
  readonly seed: number | undefined;
  readonly trouble: string | undefined;
}

async function findPlanted(plant: Plant): Promise<Found> {
  const thread = threadOf(plant.name);
  const within = plant.within ?? 400;
  try {
    for (let from = 1; from <= within; ) {
      const { failure, ran } = await thread.run({ from, count: Math.min(20, within - from + 1), traced: false });
      from += Math.max(1, ran);
      if (!failure || plant.also?.includes(failure.invariant)) continue;
      const rightly = plant.finds.includes(failure.invariant);
      const trouble = rightly ? undefined : `found by another invariant than ${plant.finds.join(', ')}: ${failure.message}`;
      return { plant, by: failure.invariant, seed: failure.seed, trouble };
    }
    return { plant, by: undefined, seed: undefined, trouble: `not found in ${within} seeds` };
  } catch (error) {
    return { plant, by: undefined, seed: undefined, trouble: (error as Error).message };
  } finally {
    await thread.end();
  }
}

async function runPlanted(): Promise<readonly Found[]> {
  const found = new Map<Plant, Found>();
  let next = 0;
  const work = async (): Promise<void> => {
    for (let plant = plants[next++]; plant; plant = plants[next++]) found.set(plant, await findPlanted(plant));
  };
  await Promise.all(Array.from({ length: threads }, work));
  return plants.flatMap((plant) => found.get(plant) ?? []);
}

const began = performance.now();
let [passed, failed] = [0, 0];
if (values.planted) {
  const found = await runPlanted();
  const width = Math.max(...plants.map(({ bug }) => bug.length));
  for (const { plant, by, seed, trouble } of found) console.log(`${plant.bug.padEnd(width)}  ${trouble ?? `invariant ${by?.padEnd(2)}  seed ${seed}`}`);
  failed = found.filter(({ trouble }) => trouble).length;
  passed = found.length - failed;
} else if (values.seed !== undefined) {
  if (await replay(number('seed', 1))) passed++;
  else failed++;
} else {
  const [from, count] = [number('from', 1), number('seeds', 10_000)];
  const totals = await runSeeds(from, count);
  failed = totals.failed;
  passed = totals.ran - failed;
  const seconds = (performance.now() - began) / 1_000;
  console.log(
    `seeds ${from} to ${from + count - 1}: ${(totals.ran / seconds).toFixed(0)} a second, ${totals.events} steps, ${Math.round(totals.simulatedSeconds / 3_600)} simulated hours in ${seconds.toFixed(0)} s, fingerprint ${totals.fingerprint}`,
  );
  const shown = [
    'grant.opened',
    'lease.revealed',
    'lease.again',
    'lease.revoked',
    'lease.revocation-failed',
    'lease.adopted',
    'lease.vanished',
    'decision.refused',
    'answers',
  ];
  console.log(shown.map((what) => `${what} ${totals.counts[what] ?? 0}`).join(', '));
  // A run in which little happens shows little.
  if (count >= 100 && shown.some((what) => what !== 'lease.adopted' && !totals.counts[what])) {
    console.log('something of these never happened: the simulation no longer reaches it');
    failed++;
  }
}
console.log(`${passed} passed, ${failed} failed`);
// Not `exit`: a long trace may still be on its way.
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
