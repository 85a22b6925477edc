/**
 * Invariants 17, 22 and 25 where people are told: nothing that must be told is lost with a process, no secret is in any message,
 * and a request is found by those who may decide it whether or not a message arrived. Real servers on both sides.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { afterEach, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { ask, claimed, granted } from '../support/house-verbs.ts';
import { type MailServer, type Receiver, startMailServer, startReceiver } from '../support/post.ts';

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

interface Setting {
  readonly house: House;
  readonly post: MailServer;
  readonly pager: Receiver;
  readonly secret: string;
}

async function setting(options: { server?: 'here' | 'none'; worker?: boolean } = {}): Promise<Setting> {
  const [post, pager] = [await startMailServer(), await startReceiver()];
  undo.push(post.close, pager.close);
  const secret = `whsec_${randomBytes(24).toString('base64')}`;
  process.env['TEST_HOOK_SECRET'] = secret;
  const house = await startTestHouse({
    ...options,
    logLevel: 'debug',
    tell: `email: { host: 127.0.0.1, port: ${post.port}, tls: none, from: halligan@example.com }
webhooks: { pager: { url: '${pager.url}', secretEnv: TEST_HOOK_SECRET, allowPrivate: true } }
notify: [ { email: [team@example.com], webhooks: [pager] }, { after: 10m, email: [boss@example.com] } ]`,
  });
  undo.push(() => house.close());
  return { house, post, pager, secret };
}
const typesAt = (pager: Receiver, request: string): string[] =>
  pager.calls
    .map((call) => JSON.parse(call.body) as { type: string; data: { request: { id: string } } })
    .flatMap(({ type, data }) => (data.request.id === request ? [type] : []));

test('invariant 17: break-glass opens with every channel dead; killed right after the commit, it is told at the next start', async () => {
  const { house, post, pager } = await setting({ worker: false });
  post.faults = { greeting: 'hang' };
  pager.answer = () => 500;
  const answer = await (await house.apiAs('oncall')).post<{ id: string; grant: { id: string; state: string } }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '10m',
    reason: 'the payments queue grows',
    breakGlass: true,
  });
  expect(answer.body.grant.state).toBe('active');
  await claimed(house, answer.body.grant.id);
  // This process told nobody, and is gone.
  await house.stop();
  expect([post.mails.length, pager.calls.length]).toEqual([0, 0]);
  post.faults = {};
  pager.answer = () => 204;
  await house.start({ worker: true });
  await until('all steps are told', () => post.mails.length === 2 && typesAt(pager, answer.body.id).includes('request.glass-broken'));
  expect(post.mails.map((mail) => mail.to[0]).sort()).toEqual(['boss@example.com', 'team@example.com']);
  expect(post.mails[0]!.subject).toMatch(/^BREAK-GLASS: On-call engineer may read the orders database for 10 minutes, without approval/);
  expect(post.mails[0]!.text).toContain('If this is not legitimate, end it on its page now');
  await until('and what followed', () => typesAt(pager, answer.body.id).includes('lease.revealed'));
}, 60_000);

test('killed between the sending and its record: it is sent again, with the same id; nothing else is', async () => {
  const { house, pager, secret } = await setting({ server: 'none' });
  let child: ChildServer = await startChild(house);
  undo.push(() => child.kill());
  await house.tokenOf('oncall');
  pager.answer = () => 'hang';
  const { id } = await ask(house);
  await until('the call has arrived', () => pager.calls.length === 1);
  await child.kill();
  pager.answer = () => 204;
  // As if the twenty seconds had passed for which nobody else would send it.
  await house.database.superuser.query('UPDATE delivery SET sending_until = now() WHERE request_id = $1', [id]);
  child = await startChild(house);
  await until(
    'it is recorded',
    async () => (await house.database.superuser.query(`SELECT FROM delivery WHERE channel = 'webhook' AND state = 'sent'`)).rowCount === 1,
  );
  expect(pager.calls).toHaveLength(2);
  expect(pager.calls[1]!.headers['webhook-id']).toBe(pager.calls[0]!.headers['webhook-id']);
  for (const call of pager.calls) new Webhook(secret).verify(call.body, call.headers as Record<string, string>);
  await child.stop();
}, 60_000);

test('two workers at once, in two processes: each message arrives once', async () => {
  const { house, post, pager } = await setting();
  const child = await startChild({ ...house, configFile: await otherPort(house) });
  undo.push(() => child.stop());
  const ids: string[] = [];
  for (let n = 0; n < 20; n++) ids.push((await ask(house)).id);
  await until('all are told', async () => (await house.database.superuser.query(`SELECT FROM delivery WHERE state = 'sent'`)).rowCount === 40);
  expect(post.mails).toHaveLength(20);
  expect(ids.map((id) => typesAt(pager, id))).toEqual(ids.map(() => ['request.submitted']));
}, 60_000);

/** The same house on another port, for a process more. */
async function otherPort(house: House): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  const { freePort } = await import('../support/house.ts');
  const text = (await readFile(house.configFile, 'utf8')).replaceAll(new URL(house.url).host, `127.0.0.1:${await freePort()}`);
  const file = join(house.folder, 'second.yaml');
  await writeFile(file, text);
  return file;
}

test('invariant 25: every message failed, and every eligible approver finds the request by query within 5 s', async () => {
  const { house, post, pager } = await setting();
  post.faults = { rcpt: () => 550 };
  pager.answer = () => 410;
  for (const person of ['lead', 'lead-2', 'lead-oncall']) await house.tokenOf(person);
  const began = performance.now();
  const { id } = await ask(house);
  const found = await Promise.all(
    ['lead', 'lead-2', 'lead-oncall'].map(async (person) => {
      const api = await house.apiAs(person);
      return until(
        `${person} finds it`,
        async () => (await api.get<{ items: { id: string }[] }>('/requests?toDecide=true')).body.items.some((one) => one.id === id),
        5_000,
      );
    }),
  );
  expect(found).toEqual([true, true, true]);
  expect(performance.now() - began).toBeLessThan(5_000);
  await until(
    'every message failed',
    async () => (await house.database.superuser.query(`SELECT FROM delivery WHERE request_id = $1 AND state = 'failed'`, [id])).rowCount === 2,
  );
  expect([
    post.mails.length,
    (await house.apiAs('stranger').then((api) => api.get<{ items: unknown[] }>('/requests?toDecide=true'))).body.items.length,
  ]).toEqual([0, 0]);
}, 60_000);

test('invariant 22: no message carries a secret: not the credential, not a token, not what signs or sends', async () => {
  const { house, post, pager, secret } = await setting();
  const { request, grant } = await granted(house);
  const first = await claimed(house, grant);
  const second = await claimed(house, grant);
  // A failure of the target, which is told in words.
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} NOCREATEROLE`);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' });
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} CREATEROLE`);
  await (await house.apiAs('lead')).post(`/grants/${grant}/revoke`, { reason: 'enough' });
  await until('the end was told', () => typesAt(pager, request).includes('grant.ended'), 20_000);
  const places: Record<string, string> = {
    mail: post.mails.map((mail) => `${mail.raw}\n${mail.text}\n${mail.html}`).join('\n'),
    webhooks: pager.calls.map((call) => `${JSON.stringify(call.headers)}\n${call.body}`).join('\n'),
    rows:
      JSON.stringify((await house.database.superuser.query('SELECT * FROM notice')).rows) +
      JSON.stringify((await house.database.superuser.query('SELECT * FROM delivery')).rows),
    log: house.logged.join(''),
    'what people read': (await (await house.apiAs('admin')).get(`/requests/${request}/deliveries`)).text,
  };
  const secrets = { first: first.secret.password, second: second.secret.password, token: await house.tokenOf('oncall'), signing: secret.slice(6) };
  const found: string[] = [];
  for (const [what, text] of Object.entries(secrets))
    for (const spelling of [text, encodeURIComponent(text), Buffer.from(text).toString('base64').replace(/=+$/, ''), Buffer.from(text).toString('hex')])
      for (const [where, all] of Object.entries(places)) if (all.includes(spelling)) found.push(`${what} in ${where}`);
  expect(found).toEqual([]);
  // The search itself is able to find.
  expect(places['webhooks']).toContain(first.handle);
  expect(places['mail']).toContain('read the orders database');
}, 60_000);
