/** A thread that simulates: it plants its bug while the real code is loaded, takes time and chance over, and runs the seeds that it is sent. */
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import { install } from './globals.ts';
import { plants } from './planted.ts';

export interface Work {
  readonly from: number;
  readonly count: number;
  readonly traced: boolean;
}
export interface Failure {
  readonly seed: number;
  readonly invariant: string;
  readonly message: string;
  readonly trace: readonly string[];
}
export interface Done {
  readonly from: number;
  readonly ran: number;
  readonly events: number;
  readonly simulatedSeconds: number;
  /** The sum of the runs' own, by 2^32. */
  readonly fingerprint: number;
  readonly counts: Readonly<Record<string, number>>;
  readonly failure: Failure | undefined;
}

const plant = plants.find(({ name }) => name === (workerData as { plant?: string } | null)?.plant);
/** Telling people has no part in this, and no channel. */
const noNotifier = 'export const notifier = () => ({ lanes: [], run: async () => undefined, stop: async () => undefined });';
/** Nothing is old enough to be pruned in a run of two minutes. */
const noPruner = 'export const pruner = () => async () => undefined;';
const root = new URL('../../', import.meta.url).href;
const missing = new Set(plant?.edits);

registerHooks({
  load(url, context, next) {
    const file = url.startsWith(root) ? url.slice(root.length) : '';
    if (file === 'src/workers/notify.ts') return { format: 'module', source: noNotifier, shortCircuit: true };
    if (file === 'src/workers/prune.ts') return { format: 'module', source: noPruner, shortCircuit: true };
    const edits = plant?.edits?.filter((edit) => edit.file === file) ?? [];
    const loaded = next(url, context);
    if (edits.length === 0) return loaded;
    let source = typeof loaded.source === 'string' ? loaded.source : new TextDecoder().decode(loaded.source as Uint8Array);
    for (const edit of edits) {
      if (source.split(edit.from).length !== 2) throw new Error(`${plant?.name}: ${fileURLToPath(url)} has not once: ${edit.from}`);
      source = source.replace(edit.from, () => edit.to);
      missing.delete(edit);
    }
    return { ...loaded, source };
  },
});
const { runSeed } = await import('./run-seed.ts');
install();
for (const edit of missing) throw new Error(`${plant?.name}: ${edit.file} is not loaded`);

/** Runs until the first failure. */
async function run({ from, count, traced }: Work): Promise<Done> {
  Error.stackTraceLimit = traced ? 10 : 0;
  let [events, simulatedSeconds, fingerprint] = [0, 0, 0];
  const counts: Record<string, number> = {};
  for (let seed = from; seed < from + count; seed++) {
    const outcome = await runSeed(seed, plant, traced);
    events += outcome.events;
    simulatedSeconds += outcome.simulatedSeconds;
    fingerprint = (fingerprint + outcome.fingerprint) % 2 ** 32;
    for (const [what, times] of Object.entries(outcome.counts)) counts[what] = (counts[what] ?? 0) + times;
    const { broken } = outcome;
    if (broken || traced) {
      const failure = broken ? { seed, invariant: broken.invariant, message: broken.message, trace: outcome.trace } : undefined;
      if (broken) return { from, ran: seed - from + 1, events, simulatedSeconds, fingerprint, counts, failure };
      return { from, ran: count, events, simulatedSeconds, fingerprint, counts, failure: { seed, invariant: '', message: '', trace: outcome.trace } };
    }
  }
  return { from, ran: count, events, simulatedSeconds, fingerprint, counts, failure: undefined };
}

parentPort?.on('message', (work: Work) => {
  run(work).then(
    (done) => parentPort?.postMessage(done),
    (error: unknown) =>
      parentPort?.postMessage({
        from: work.from,
        ran: 0,
        events: 0,
        simulatedSeconds: 0,
        fingerprint: 0,
        counts: {},
        failure: { seed: work.from, invariant: 'unforeseen', message: String((error as Error).stack ?? error), trace: [] },
      } satisfies Done),
  );
});
