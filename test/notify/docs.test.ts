/** docs/notifications.md says what the code does: its configs are loaded, its receiver is run, its payload and its types are the real ones. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { toldEvents } from '../../src/domain/notice.ts';
import { payloadOf, webhookChannel } from '../../src/notify/webhook.ts';
import { read, sample } from '../config/sample.ts';
import { freePort, until } from '../support/house.ts';
import { newDelivery, newStory } from './story.ts';

const docs = await readFile('docs/notifications.md', 'utf8');
const blocks = (language: string): string[] => [...docs.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map((match) => match[1] ?? '');
const secret = `whsec_${randomBytes(24).toString('base64')}`;
beforeAll(() => {
  process.env['TEST_DOCS_SECRET'] = secret;
});
afterAll(() => {
  delete process.env['TEST_DOCS_SECRET'];
});

test('its configs are loaded', async () => {
  const [ways = '', ...ladders] = blocks('yaml');
  const slack = 'slack: { workspace: T0123ABCD, botTokenFile: a, signingSecretFile: b }\n';
  expect(ladders).toHaveLength(3);
  const routes = async (text: string) => (await read(`${text}${slack}${ways}`)).tell.routes;
  expect((await routes(sample + ladders[0])).get('orders-readonly')).toMatchObject([
    { afterSeconds: 0, slack: ['C0123ABCD', 'approvers'] },
    { afterSeconds: 300, email: ['approvers'] },
    { afterSeconds: 900, email: ['oncall-leads@example.com'], webhooks: ['pager'] },
  ]);
  expect((await routes(sample + ladders[1])).get('orders-readonly')).toMatchObject([{ afterSeconds: 0, email: ['approvers', 'security@example.com'] }]);
  const own = (ladders[2] ?? '').split('\n').slice(2).join('\n');
  expect((await routes(sample.replace('    maxDuration: 4h\n', `    maxDuration: 4h\n${own}`))).get('orders-readonly')).toMatchObject([
    { webhooks: ['pager'], email: ['orders-owners@example.com'] },
  ]);
});

test('its receiver takes what we sign and refuses what another signs', async () => {
  const port = await freePort();
  const [receiver = ''] = blocks('js');
  const child = spawn(process.execPath, ['--input-type=module', '-e', receiver], {
    env: { PATH: process.env['PATH'], PORT: String(port), HALLIGAN_WEBHOOK_SECRET: secret },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    let said = '';
    child.stdout.on('data', (chunk) => {
      said += String(chunk);
    });
    const send = (more: { env: string }) => {
      const hook = { name: 'pager', url: `http://127.0.0.1:${port}/`, allowPrivate: true, secret: more };
      return webhookChannel(new Map([['pager', hook]])).send(delivery, newStory(), AbortSignal.timeout(2_000));
    };
    const delivery = newDelivery({ channel: 'webhook', address: 'pager' });
    await until('it listens and takes it', () =>
      send({ env: 'TEST_DOCS_SECRET' }).then(
        () => true,
        () => false,
      ),
    );
    await until('it says so', () => said.includes(`${delivery.id} request.submitted On-call engineer asks to read the orders database for 1 hour\n`));
    process.env['TEST_DOCS_OTHER'] = `whsec_${randomBytes(24).toString('base64')}`;
    await expect(send({ env: 'TEST_DOCS_OTHER' })).rejects.toThrow('answered 401');
  } finally {
    delete process.env['TEST_DOCS_OTHER'];
    child.kill('SIGKILL');
  }
});

test('its payload has the form of a real one', () => {
  const formOf = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(formOf)
      : value !== null && typeof value === 'object'
        ? Object.fromEntries(Object.entries(value).map(([key, member]) => [key, formOf(member)]))
        : value === null
          ? null
          : typeof value;
  expect(formOf(JSON.parse(blocks('json')[0] ?? ''))).toEqual(formOf(payloadOf(newStory())));
});

test('it names every type that is told, and no other', () => {
  const listed = [...(docs.split('\nTypes: ')[1] ?? '').matchAll(/`([a-z.-]+)`/g)].map((match) => match[1]);
  expect(listed.sort()).toEqual([...toldEvents].sort());
});
