/** A webhook that hangs keeps nobody else waiting. How soon a message is there is measured by `npm run bench -- --only telling`. */
import { randomBytes } from 'node:crypto';
import { afterAll, expect, test } from 'vitest';
import { startTestHouse, until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { startReceiver } from '../support/post.ts';

const undo: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

test('four people ask at once: each request is told, once, while another webhook hangs', async () => {
  process.env['TEST_PROMPT_SECRET'] = `whsec_${randomBytes(24).toString('base64')}`;
  const [pager, hangs] = [await startReceiver(), await startReceiver()];
  undo.push(pager.close, hangs.close);
  hangs.answer = () => 'hang';
  const hook = (url: string) => `{ url: '${url}', secretEnv: TEST_PROMPT_SECRET, allowPrivate: true }`;
  const house = await startTestHouse({
    pendingPerPerson: 1_000,
    tell: `webhooks: { pager: ${hook(pager.url)}, hangs: ${hook(hangs.url)} }\nnotify: [ { webhooks: [pager, hangs] } ]`,
  });
  undo.push(() => house.close());
  await house.tokenOf('oncall');
  const began = Date.now();
  const count = 100;
  const person = async (): Promise<void> => {
    for (let n = 0; n < count / 4; n++) await ask(house);
  };
  await Promise.all(Array.from({ length: 4 }, person));
  await until('all have arrived', () => pager.calls.length === count, 30_000);
  expect(new Set(pager.calls.map((call) => call.headers['webhook-id'])).size).toBe(count);
  const told = pager.calls.map((call) => (JSON.parse(call.body) as { data: { request: { id: string } } }).data.request.id);
  expect(new Set(told).size).toBe(count);
  // The hanging one's calls are given up after ten seconds each: nobody waited for them.
  expect(Math.max(...pager.calls.map((call) => call.at)) - began).toBeLessThan(10_000);
}, 90_000);
