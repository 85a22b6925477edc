/**
 * A hundred thousand and a million active grants: how promptly the few that are due are cut, beside BullMQ's delayed jobs alone; what
 * the many cost in memory; and how soon a process is ready. The million are in a PostgreSQL and a Halligan of their own.
 */
import { rm } from 'node:fs/promises';
import { type Job as BullJob, Queue, Worker } from 'bullmq';
import pg from 'pg';
import { type RedisServer, startRedis } from '../live/servers/redis.ts';
import { crowd, openWatched, ours, sessions, targetUrl } from './ending.ts';
import { freePort, type Startable, startable, untilReady } from './start.ts';
import { clientOf } from './storm.ts';
import { type Bench, type Figure, figure, median, ms, quantile, startBench, tokensOf } from './support.ts';

const rounds = 5;
const backlog = 100_000;
const million = 1_000_000;
const dayMs = 86_400_000;

interface Bulk {
  readonly redis: RedisServer;
  readonly queue: Queue;
  readonly bytesPerJob: number;
}

/** One delayed job for each grant, with what a job of ours holds. */
async function delayedJobs(count: number): Promise<Bulk> {
  const redis = await startRedis();
  const queue = new Queue('delayed', { connection: redis.client, skipVersionCheck: true });
  const used = async (): Promise<number> => Number(/^used_memory:(\d+)/m.exec(await redis.client.info('memory'))?.[1]);
  const before = await used();
  for (let from = 0; from < count; from += 5_000)
    await queue.addBulk(
      Array.from({ length: 5_000 }, (_, index) => {
        const subject = `gnt_${String(from + index).padStart(32, '0')}`;
        return {
          name: 'grant-due',
          data: { subject, epoch: 0, due: Date.now() + dayMs },
          opts: { jobId: `grant-due-${subject}-0`, delay: dayMs, removeOnComplete: true },
        };
      }),
    );
  return { redis, queue, bytesPerJob: ((await used()) - before) / count };
}

/** Due → cut with BullMQ alone: a delayed job for each session, whose worker ends the login. */
async function byBull(bench: Bench, { redis, queue }: Bulk): Promise<number[]> {
  const admin = new pg.Pool({ connectionString: targetUrl(bench, 'postgres', new URL(bench.superuserUrl).password), max: 4 });
  const connection = redis.client.duplicate({ maxRetriesPerRequest: null });
  const worker = new Worker(
    queue.name,
    async ({ data: { role } }: BullJob<{ role: string }>) => {
      await admin.query(`ALTER ROLE ${role} NOLOGIN`);
      await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
      await admin.query(`DROP ROLE ${role}`);
    },
    // It looks at the server's version first: without that it waits in whole seconds.
    { connection, concurrency: 4 },
  );
  worker.on('error', () => undefined);
  const watched: { cut: Promise<number> }[] = [];
  for (let index = 0; index < sessions; index++) {
    const role = `bull_${crypto.randomUUID().replaceAll('-', '')}`;
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'bench-only' IN ROLE orders_ro`);
    const due = new Date(Date.now() + 6_000);
    await queue.add('end', { role }, { delay: due.getTime() - Date.now(), removeOnComplete: true });
    watched.push(await openWatched(targetUrl(bench, role, 'bench-only'), due));
    await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 60));
  }
  const cuts = await Promise.all(watched.map(({ cut }) => cut));
  await worker.close();
  connection.disconnect();
  await admin.end();
  return cuts;
}

/** Bytes of a table and its indexes for each of `count` rows. */
async function bytesPerRow(bench: Bench, table: string, count: number): Promise<number> {
  const client = await clientOf(bench, 'halligan');
  const { rows } = await client.query<{ bytes: string }>('SELECT pg_total_relation_size($1::regclass)::text AS bytes', [table]);
  await client.end();
  return Number(rows[0]?.bytes) / count;
}

/** What the process needs with the crowd more than without: the median of a few looks, as the collector comes and goes. */
async function settledMemory(bench: Bench): Promise<number> {
  const looks: number[] = [];
  for (let look = 0; look < 15; look++) {
    looks.push(await bench.memory());
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  return median(looks);
}

/** `bench` gets a hundred thousand. */
export async function scale(bench: Bench): Promise<Figure[]> {
  const full = await startBench();
  const bulk = await delayedJobs(backlog);
  try {
    const tokens = await tokensOf(bench.url, 'oncall', 4);
    const fullTokens = await tokensOf(full.url, 'oncall', 4);
    await ours(full, fullTokens);
    const before = await settledMemory(full);
    await crowd(full, million);
    const ofGrant = await bytesPerRow(full, 'access_grant', million);
    const ofRequest = await bytesPerRow(full, 'request', million);
    await ours(full, fullTokens);
    const inNode = Math.max(0, (await settledMemory(full)) - before) / million;
    await crowd(bench, backlog);
    await ours(bench, tokens);
    const [againstBull, againstFew]: [number[], number[]] = [[], []];
    let last = '';
    for (let round = 0; round < rounds; round++) {
      const mine = await ours(bench, tokens);
      const bull = await byBull(bench, bulk);
      const many = await ours(full, fullTokens);
      againstBull.push(quantile(mine, 0.99) / quantile(bull, 0.99));
      againstFew.push(quantile(many, 0.99) / quantile(mine, 0.99));
      last = `p50 ${ms(quantile(mine, 0.5))}, p99 ${ms(quantile(mine, 0.99))}; BullMQ alone p50 ${ms(quantile(bull, 0.5))}, p99 ${ms(quantile(bull, 0.99))}; with a million p50 ${ms(quantile(many, 0.5))}, p99 ${ms(quantile(many, 0.99))}`;
    }
    return [
      figure('due → cut with 100,000 active ÷ BullMQ delayed jobs alone with as many, p99', againstBull, { most: 1 }, last),
      figure('due → cut with 1,000,000 active ÷ with 100,000, p99', againstFew, { most: 1.5 }, `${sessions} sessions a round`),
      figure(
        'bytes in Node and Redis for each of 1,000,000 active grants ÷ one BullMQ delayed job',
        [inNode / bulk.bytesPerJob],
        { most: 0.1 },
        `${inNode < 1 ? 'less in Node than its memory comes and goes by' : `${inNode.toFixed(0)} bytes in Node`}, none in Redis before they are due within two minutes; ${bulk.bytesPerJob.toFixed(0)} bytes in Redis for a delayed job`,
      ),
      figure(
        'PostgreSQL bytes for each of 1,000,000 active grants, with its indexes',
        [ofGrant],
        { most: 600 },
        `${ofGrant.toFixed(0)} bytes; its request has ${ofRequest.toFixed(0)} more`,
      ),
      ...(await startingFull(full)),
    ];
  } finally {
    await bulk.queue.close();
    await bulk.redis.stop();
    await full.stop();
  }
}

/** From the start of a process to `/readyz`, with a million active grants and with none. */
async function startingFull(bench: Bench): Promise<Figure[]> {
  const [none, many] = [await startable(bench, 'halligan_start'), await startable(bench, 'halligan_full')];
  const url = new URL(many.databaseUrl);
  await crowd({ superuserUrl: url.href }, million, 'halligan_full');
  const took = async ({ args, env }: Startable): Promise<number> => {
    const port = await freePort();
    return untilReady(await args(port), port, env);
  };
  const [ratios, empties, fulls]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < 7; round++) {
    empties.push(await took(none));
    fulls.push(await took(many));
    ratios.push((fulls.at(-1) ?? 0) / (empties.at(-1) ?? 1));
  }
  for (const { folder } of [none, many]) await rm(folder, { recursive: true, force: true });
  return [figure('cold start with 1,000,000 active ÷ with none', ratios, { most: 1.5 }, `${ms(median(fulls))} against ${ms(median(empties))}`)];
}
