/** From the commit to the message at the other side: prompt, because a commit nudges the notifier, and not only when its second comes round. */
import { randomBytes } from 'node:crypto';
import { afterAll, expect, test } from 'vitest';
import { startTestHouse, until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { startReceiver } from '../support/post.ts';

const undo: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

/** How often the relay looks of its own accord. */
const periodMs = 1_000;

test('committed to arrived: 99 of 100 within one period of the relay, eight people asking at once, while another webhook hangs', async () => {
  process.env['TEST_PROMPT_SECRET'] = `whsec_${randomBytes(24).toString('base64')}`;
  const [pager, hangs] = [await startReceiver(), await startReceiver()];
  undo.push(pager.close, hangs.close);
  hangs.answer = () => 'hang';
  const hook = (url: string) => `{ url: '${url}', secretEnv: TEST_PROMPT_SECRET, allowPrivate: true }`;
  const house = await startTestHouse({ tell: `webhooks: { pager: ${hook(pager.url)}, hangs: ${hook(hangs.url)} }\nnotify: [ { webhooks: [pager, hangs] } ]` });
  undo.push(() => house.close());
  await house.tokenOf('oncall');
  const count = 160;
  const lane = async (): Promise<void> => {
    for (let n = 0; n < count / 8; n++) await ask(house);
  };
  await Promise.all(Array.from({ length: 8 }, lane));
  await until('all have arrived', () => pager.calls.length === count, 30_000);
  const { rows } = await house.database.superuser.query<{ id: string; ms: number }>(
    `SELECT request_id AS id, extract(epoch FROM created_at)::float * 1000 AS ms FROM notice WHERE type = 'request.submitted'`,
  );
  const begun = new Map(rows.map((row) => [row.id, row.ms]));
  const took = pager.calls
    .map((call) => call.at - (begun.get((JSON.parse(call.body) as { data: { request: { id: string } } }).data.request.id) ?? Number.NaN))
    .sort((a, b) => a - b);
  const [half, most] = [took[Math.floor(count * 0.5)]!, took[Math.ceil(count * 0.99) - 1]!];
  console.log(
    `from the begin of the transaction to the receiver: p50 ${half.toFixed(0)} ms, p99 ${most.toFixed(0)} ms; p99 ÷ period ${(most / periodMs).toFixed(2)}`,
  );
  expect(new Set(pager.calls.map((call) => call.headers['webhook-id'])).size).toBe(count);
  expect(most / periodMs).toBeLessThanOrEqual(1);
}, 90_000);
