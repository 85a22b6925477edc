/**
 * `npm run test:faults`: every step between two side effects × {kill, pause, throw, hang}, on real processes and real targets.
 *
 *   (nothing)            a sample that fits into eight minutes; its seed is the date's, so that each day takes other cases
 *   --minutes N          a sample that fits into so many
 *   --seed N             the sample of this seed again
 *   --all                every case
 *   --only NAME          the cases of this failpoint, or of all that begin with it (`postgres.`); again for more
 *   --mode M             of those, the ones of this mode: kill, pause, throw or hang
 *   --at-once N          so many cases side by side; four unless told: they mostly wait
 *
 * It fails when a failpoint was not reached. The last line is `N passed, N failed, seed S`.
 */
import { parseArgs } from 'node:util';
import type { TestProject } from 'vitest/node';
import { type Failpoint, failpoints } from '../../src/domain/failpoint.ts';
import setup from '../support/global-setup.ts';
import { killAll, type Mode, modes } from './processes.ts';
import { provide, standInForVitest } from './stand-in.ts';

standInForVitest();
const [{ stories }, { missingFor, openServers }, { runCase }] = await Promise.all([import('./stories.ts'), import('./targets.ts'), import('./case.ts')]);

const { values } = parseArgs({
  options: {
    all: { type: 'boolean' },
    seed: { type: 'string' },
    minutes: { type: 'string' },
    only: { type: 'string', multiple: true },
    mode: { type: 'string', multiple: true },
    'at-once': { type: 'string' },
  },
});

function number(name: 'seed' | 'minutes' | 'at-once', otherwise: number): number {
  const given = values[name];
  if (given === undefined) return otherwise;
  if (/^\d{1,9}$/.test(given)) return Number(given);
  console.error(`--${name} takes a whole number, not ${JSON.stringify(given)}`);
  process.exit(2);
}

/** mulberry32. */
function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function shuffled<T>(list: readonly T[], random: () => number): T[] {
  const left = [...list];
  return list.map(() => left.splice(Math.floor(random() * left.length), 1)[0] as T);
}

interface Planned {
  readonly name: Failpoint;
  readonly mode: Mode;
}

const seed = number('seed', Number(new Date().toISOString().slice(0, 10).replaceAll('-', '')));
const names = Object.keys(failpoints) as Failpoint[];
/** What a case takes, in seconds, as was seen. */
const expected: Readonly<Record<Mode, number>> = { kill: 25, throw: 15, hang: 50, pause: 75 };

/** All cases in the order of the seed: first each failpoint once, in some mode, then each in the next, and so on. */
function planned(): Planned[] {
  const wrong = [
    ...(values.only ?? []).filter((prefix) => !names.some((name) => name.startsWith(prefix))),
    ...(values.mode ?? []).filter((mode) => !(modes as readonly string[]).includes(mode)),
  ];
  if (wrong.length > 0) {
    console.error(`there is no ${wrong.join(', no ')}. Failpoints: ${names.join(' ')}. Modes: ${modes.join(' ')}.`);
    process.exit(2);
  }
  const order = shuffled(names, randomFrom(seed));
  const all = modes.flatMap((_, round) => order.map((name, index): Planned => ({ name, mode: modes[(index + seed + round) % modes.length] as Mode })));
  return all.filter(
    ({ name, mode }) => (!values.only || values.only.some((prefix) => name.startsWith(prefix))) && (!values.mode || values.mode.includes(mode)),
  );
}

const cases = planned();
const whole = values.all === true || values.only !== undefined || values.mode !== undefined;
const minutes = whole && values.minutes === undefined ? Number.POSITIVE_INFINITY : number('minutes', 8);
const atOnce = number('at-once', 4);
const began = performance.now();
const secondsSince = (from: number): number => (performance.now() - from) / 1_000;

/** Halligans at one Vault or one cluster would end each other's leases, so these targets are lent to one case at a time. */
const lent = new Set<string>();
const alone = ({ name }: Planned): string | undefined => (['vault', 'kubernetes'].includes(stories[name].kind) ? stories[name].kind : undefined);

function next(): Planned | undefined {
  const left = minutes * 60 - secondsSince(began);
  const index = cases.findIndex((one) => !lent.has(alone(one) ?? '') && expected[one.mode] <= left);
  return index < 0 ? undefined : cases.splice(index, 1)[0];
}

const done: (Planned & { readonly failure?: string | undefined })[] = [];
let stopped = false;

async function runOne(servers: ReturnType<typeof openServers>, one: Planned): Promise<void> {
  const from = performance.now();
  const target = alone(one);
  if (target) lent.add(target);
  const { name, mode } = one;
  const missing = [stories[name].kind, ...(stories[name].redis ? (['redis'] as const) : [])].flatMap(missingFor);
  let [failure, remarks]: [string | undefined, string[]] = [undefined, []];
  try {
    if (missing.length > 0) throw new Error(`it cannot be had here. It needs ${missing.join('; ')}.`);
    // The same numbers for the same case, whatever ran before it.
    remarks = await runCase(servers, { name, mode, random: randomFrom(seed * 1_000 + names.indexOf(name) * modes.length + modes.indexOf(mode)) });
  } catch (error) {
    failure = (error as Error).message;
  } finally {
    if (target) lent.delete(target);
  }
  if (stopped) return;
  done.push({ ...one, failure });
  console.log(
    `${mode.padEnd(5)} ${name.padEnd(26)} ${failure === undefined ? 'ok' : 'FAILED'} ${secondsSince(from).toFixed(1)} s${remarks.map((remark) => `\n  note: ${remark}`).join('')}`,
  );
  if (failure !== undefined) console.log(`  ${failure}\n  again: npm run test:faults -- --only ${name} --mode ${mode} --seed ${seed}`);
}

async function lane(servers: ReturnType<typeof openServers>): Promise<void> {
  while (!stopped) {
    const one = next();
    if (one) await runOne(servers, one);
    else if (lent.size > 0 && cases.some((left) => lent.has(alone(left) ?? ''))) await new Promise((resolve) => setTimeout(resolve, 500));
    else return;
  }
}

let server: Parameters<typeof provide>[1] | undefined;
const tearDown = await setup({ provide: (_key: 'server', given: typeof server) => (server = given) } as unknown as TestProject);
if (server) provide('server', server);
const servers = openServers();
const stop = (): void => {
  if (stopped) process.exit(130);
  stopped = true;
  killAll();
  console.log('stopping: the servers are ended');
  void servers
    .close()
    .then(tearDown)
    .catch(() => undefined)
    .finally(() => process.exit(130));
};
process.on('SIGINT', stop).on('SIGTERM', stop);
// What a case that is being cut off still says; without it the servers would be left behind.
process.on('unhandledRejection', (error) => {
  if (stopped) return;
  console.error('nobody waited for this failure:', error);
  process.exitCode = 1;
  stop();
});

const total = cases.length;
console.log(`seed ${seed}: ${whole ? 'all of' : `as many as fit into ${minutes} minutes of`} ${total} cases, ${atOnce} at once`);
await Promise.all(Array.from({ length: atOnce }, () => lane(servers)));
await servers.close();
let failed = done.filter(({ failure }) => failure !== undefined).length;
if (!stopped) {
  await tearDown().catch((error: Error) => {
    // A case that failed may have left something; one that did not must not.
    if (failed > 0) return;
    console.error(error.message);
    failed += 1;
  });
  const untouched = names.filter((name) => !done.some((one) => one.name === name) && cases.some((one) => one.name === name));
  const count = (mode: Mode): string => `${done.filter((one) => one.mode === mode).length} ${mode}`;
  console.log(`\n${done.length} of ${total} cases (${modes.map(count).join(', ')}) in ${(secondsSince(began) / 60).toFixed(1)} minutes`);
  if (untouched.length > 0) console.log(`not in this sample: ${untouched.join(', ')}`);
  console.log(`${done.length - done.filter(({ failure }) => failure !== undefined).length} passed, ${failed} failed, seed ${seed}`);
  process.exit(failed === 0 && done.length > 0 ? 0 : 1);
}
