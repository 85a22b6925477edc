/** The queue on Redis: how late work is when Redis is emptied with all of it pending, and what a second worker adds. */
import { spawn } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { addAll } from '../../src/queue/add-all.ts';
import { job, openUnderTest, settingsOf } from '../live/redis-support.ts';
import { type RedisServer, startRedis } from '../live/servers/redis.ts';
import { targetCount, targetOf } from './many-targets.ts';
import { freePort, type Startable, startable } from './start.ts';
import { clientOf, ourStorm } from './storm.ts';
import { type Bench, type Figure, figure, median, ms } from './support.ts';

const rounds = 5;
const pending = 10_000;
const sweepMs = 2_000;
const storm = 200;
const pause = (msecs: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, msecs));

/** The longest that one of the pending jobs waited after it was due. */
async function longestLag(redis: RedisServer): Promise<number> {
  const { queue, ran, ranAt, stop } = await openUnderTest(settingsOf(redis));
  const dueAt = new Date(Date.now() + 12_000);
  const jobs = Array.from({ length: pending }, (_, n) => job(`j${n}`, { lane: targetOf(n % targetCount), dueAt }));
  const done = new Set<string>();
  const sweep = async (): Promise<void> => {
    for (const id of ran) done.add(id);
    await addAll(
      queue,
      jobs.filter((one) => !done.has(one.id)),
    );
  };
  await sweep();
  // At some moment between two sweeps, shortly before all of it is due.
  await pause(dueAt.getTime() - Date.now() - Math.random() * sweepMs);
  await redis.client.flushall();
  while (new Set(ran).size < pending) {
    const began = Date.now();
    await sweep();
    await pause(Math.max(0, sweepMs - (Date.now() - began)));
  }
  const longest = Math.max(...ranAt) - dueAt.getTime();
  await stop();
  return longest;
}

/** FLUSHALL with ten thousand pending. */
export async function emptied(): Promise<Figure[]> {
  const redis = await startRedis();
  try {
    const lags: number[] = [];
    for (let round = 0; round < rounds; round++) lags.push(await longestLag(redis));
    const ratios = lags.map((lag) => lag / sweepMs);
    return [
      figure(
        `FLUSHALL with ${pending} pending: the longest lag ÷ the sweep's period`,
        ratios,
        { most: 2 },
        `${ms(median(lags))}; all ${pending} ran in each round`,
      ),
    ];
  } finally {
    await redis.stop();
  }
}

/** A config of workers that share Redis, with the ten targets; `args` are those of `halligan worker`. */
async function workerConfig(bench: Bench, redis: RedisServer): Promise<Startable & { file: string }> {
  const place = await startable(bench, 'halligan_workers');
  const admin = await clientOf(bench, 'halligan_workers');
  await admin.query(`ALTER ROLE halligan_bench CREATEROLE; GRANT orders_ro TO halligan_bench WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`);
  for (let index = 0; index < targetCount; index++) await admin.query(`GRANT CONNECT ON DATABASE lot_${index} TO halligan_bench`);
  await admin.query(
    `INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) VALUES ('per_' || repeat('c', 32), 'bench', 'oncall', 'oncall', '{}', now()) ON CONFLICT DO NOTHING`,
  );
  await admin.end();
  const [, , , written = ''] = await place.args(await freePort());
  const { port } = new URL(bench.superuserUrl);
  const targets = Array.from(
    { length: targetCount },
    (_, index) =>
      `  ${targetOf(index)}: { kind: postgres, host: 127.0.0.1, port: ${port}, database: lot_${index}, user: halligan_bench, passwordEnv: BENCH_PASSWORD, tls: disable }`,
  );
  const file = join(place.folder, 'workers.yaml');
  const text = (await readFile(written, 'utf8'))
    .replace(/^targets:.*$/m, `redis: { url: '${redis.url}', passwordEnv: BENCH_REDIS }\ntargets:\n${targets.join('\n')}`)
    .replace('target: orders,', `target: ${targetOf(0)},`);
  await writeFile(file, text);
  return { ...place, file };
}

/** Ends per second with so many worker processes. */
async function withWorkers(bench: Bench, { file, env }: { file: string; env: NodeJS.ProcessEnv }, count: number): Promise<number> {
  const children = Array.from({ length: count }, () =>
    spawn(process.execPath, ['bin/halligan.js', 'worker', '--config', file], { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...env } }),
  );
  await pause(4_000);
  const took = await ourStorm(bench, storm, { database: 'halligan_workers', adminRole: 'halligan_bench' });
  await Promise.all(
    children.map((child) => {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      return gone;
    }),
  );
  return (storm / took) * 1_000;
}

/** Reported without a bound: on few cores a second process has little to add. */
export async function workers(bench: Bench): Promise<Figure[]> {
  const redis = await startRedis();
  const config = await workerConfig(bench, redis);
  const place = { file: config.file, env: { ...config.env, BENCH_REDIS: redis.password } };
  try {
    await withWorkers(bench, place, 1);
    const [ones, twos]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      ones.push(await withWorkers(bench, place, 1));
      twos.push(await withWorkers(bench, place, 2));
    }
    const ratios = twos.map((two, round) => two / (ones[round] ?? 1));
    const note = `${median(twos).toFixed(0)} against ${median(ones).toFixed(0)} a second, on ${availableParallelism()} cores that the workers share with PostgreSQL, the targets and Redis`;
    return [figure('two workers ÷ one, ends per second at ten targets', ratios, { least: 0 }, note)];
  } finally {
    await rm(config.folder, { recursive: true, force: true });
    await redis.stop();
  }
}
