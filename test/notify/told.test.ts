/** Who was told, as the API, the page and the terminal show it; and webhooks that an admin has called again. The mail server, the receiver and the house are real. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { newSeat, type Seat } from '../cli/run-cli.ts';
import { loginAs } from '../support/browserless-login.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { ask, granted } from '../support/house-verbs.ts';
import { type MailServer, type Receiver, startMailServer, startReceiver } from '../support/post.ts';

interface Told {
  readonly items: {
    id: string;
    channel: string;
    to: string;
    person: { name: string } | null;
    about: string;
    state: string;
    tries: number;
    why: string | null;
    repeatable: boolean;
  }[];
  readonly spread: boolean;
  readonly nextAt: string | null;
}

let house: House;
let post: MailServer;
let pager: Receiver;
let seat: Seat;
beforeAll(async () => {
  process.env['TEST_HOOK_SECRET'] = `whsec_${randomBytes(24).toString('base64')}`;
  [post, pager] = [await startMailServer(), await startReceiver()];
  house = await startTestHouse({
    tell: `email: { host: 127.0.0.1, port: ${post.port}, tls: none, from: halligan@example.com }
webhooks: { pager: { url: '${pager.url}', secretEnv: TEST_HOOK_SECRET, allowPrivate: true } }
notify: [ { email: [approvers, team@example.com], webhooks: [pager] }, { after: 10m, email: [boss@example.com] } ]`,
  });
  for (const person of ['oncall', 'lead', 'lead-2', 'admin']) await house.tokenOf(person);
  seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf('oncall') });
});
afterAll(async () => {
  await seat?.close();
  await house?.close();
  await post?.close();
  await pager?.close();
  delete process.env['TEST_HOOK_SECRET'];
});
beforeEach(async () => {
  post.faults = {};
  pager.answer = () => 204;
  await giveAddresses();
});

/** The identity provider of the tests gives no addresses, so each login takes them away again. */
const giveAddresses = () =>
  house.database.superuser.query(`UPDATE person SET email = CASE WHEN subject IN ('oncall', 'lead') THEN subject || '@example.com' END`);
const toldOf = async (request: string, person = 'oncall'): Promise<Told> => {
  const answer = await (await house.apiAs(person)).get<Told>(`/requests/${request}/deliveries`);
  expect(answer.status, answer.text).toBe(200);
  return answer.body;
};
const settled = (request: string, person?: string): Promise<Told> =>
  until('all are told', async () => {
    const told = await toldOf(request, person);
    return told.spread && told.items.length > 0 && told.items.every((item) => item.state !== 'waiting' || item.why !== null) && told;
  });
const said = (told: Told): string[] => told.items.map((item) => `${item.to}: ${item.state}${item.why ? ` (${item.why})` : ''}`).sort();
const page = async (request: string, person: string): Promise<string> => {
  const text = await (await (await loginAs(house.url, person)).fetch(`/requests/${request}`)).text();
  return text;
};
const witnessed = async (type: string): Promise<string[]> =>
  (await house.database.superuser.query<{ line: string }>('SELECT line FROM audit_event WHERE type = $1 ORDER BY position', [type])).rows.map(
    (row) => row.line,
  );

describe('who was told', () => {
  test('each place in words, with its state and why not; addresses are shortened for all but admins', async () => {
    const { id } = await ask(house);
    const told = await settled(id);
    expect(said(told)).toEqual([
      'Second team lead by mail: failed (the identity provider gives no mail address)',
      'Team lead by mail (l…@example.com): sent',
      't…@example.com by mail: sent',
      'webhook pager: sent',
    ]);
    expect(told.items.every((item) => item.about === 'request.submitted' && !item.repeatable)).toBe(true);
    expect(Date.parse(told.nextAt!) - Date.now()).toBeGreaterThan(500_000);
    expect(said(await settled(id, 'admin'))).toEqual(expect.arrayContaining(['Team lead by mail (lead@example.com): sent', 'team@example.com by mail: sent']));
    expect(post.mails.filter((mail) => mail.text.includes(id)).map((mail) => mail.to)).toEqual(
      expect.arrayContaining([['lead@example.com'], ['team@example.com']]),
    );
    expect(JSON.parse(pager.calls.at(-1)!.body)).toMatchObject({ type: 'request.submitted', data: { request: { id } } });
  });

  test('who may not see the request is told that there is nothing', async () => {
    const { id } = await ask(house);
    for (const person of ['stranger', 'oncall-2']) {
      const answer = await (await house.apiAs(person)).get(`/requests/${id}/deliveries`);
      expect([answer.status, answer.body.code]).toEqual([404, 'not_found']);
    }
  });

  test('the page says it, and shows the failure in words; a person’s own text stays text', async () => {
    post.faults = { rcpt: (address) => (address === 'team@example.com' ? 550 : address.startsWith('lead') ? 451 : undefined) };
    pager.answer = () => 410;
    const { id } = await ask(house);
    await settled(id);
    const text = await page(id, 'lead');
    expect(text).toContain('Who was told');
    expect(text).toMatch(/Team lead by mail \(l…@example\.com\).*?not yet.*?the mail server answered 451 to RCPT TO.*?tried again/s);
    expect(text).toMatch(/t…@example\.com by mail.*?not told.*?the mail server answered 550 to RCPT TO/s);
    expect(text).toMatch(/webhook pager.*?not told.*?answered 410: nobody listens there any more/s);
    expect(text).toMatch(/The next people.*?if nobody decides before/s);
    expect(text).not.toContain('Call again');
    expect(await page(id, 'admin')).toContain('Call again');
  });

  test('the terminal says who can decide and who has been told, within two seconds even when mail hangs; status says it again', async () => {
    const quick = await seat.run('request', 'orders-readonly', '--for', '10m', '--reason', 'r', '--no-wait');
    const [asked, sent, failed, next] = quick.err.split('\n');
    expect(asked).toMatch(/^req_\w+ asked\. .*Team lead can decide/);
    expect(sent).toMatch(/^Told: t…@example\.com by mail, webhook pager and Team lead by mail \(l…@example\.com\)\.$/);
    expect(failed).toBe('Could not be told: Second team lead by mail (the identity provider gives no mail address).');
    expect(next).toMatch(/^The next people are told at [\d:]+ UTC if nobody decides before\.$/);
    const shown = await seat.run('status', quick.out.trim());
    expect(shown.out).toMatch(/^told {5}Told: .*Team lead by mail/m);

    post.faults = { greeting: 'hang' };
    const began = performance.now();
    const slow = await seat.run('request', 'orders-readonly', '--for', '10m', '--reason', 'r', '--no-wait');
    // Two seconds, and what it takes to start a program on a busy machine.
    expect(performance.now() - began).toBeLessThan(5_000);
    expect(slow.code).toBe(quick.code);
    expect(slow.err).toMatch(/Told: webhook pager\.\nBeing told: .*Team lead by mail/);
  });

  test('break-glass does not wait for messages', async () => {
    post.faults = { greeting: 'hang' };
    const ran = await seat.run('request', 'orders-readonly', '--for', '5m', '--reason', 'r', '--break-glass');
    expect(ran.err).toContain('The glass is broken');
    const grant = ran.out.trim();
    await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
    const { rows } = await house.database.superuser.query<{ id: string }>('SELECT id FROM review WHERE grant_id = $1', [grant]);
    await (await house.apiAs('reviewer')).post(`/reviews/${rows[0]!.id}/close`, { verdict: 'drill', notes: 'a test' });
  });
});

describe('calling a webhook again', () => {
  const repeat = async (id: string, person = 'admin') => (await house.apiAs(person)).post(`/deliveries/${id}/repeat`);
  const failedWebhook = async (): Promise<{ request: string; id: string }> => {
    pager.answer = () => 410;
    const { id: request } = await ask(house);
    const told = await settled(request, 'admin');
    const item = told.items.find((one) => one.channel === 'webhook');
    expect(item).toMatchObject({ state: 'failed', repeatable: true, why: 'answered 410: nobody listens there any more' });
    pager.answer = () => 204;
    return { request, id: item!.id };
  };

  test('an admin does it, by API and on the page; it arrives with the id that it had, and is witnessed', async () => {
    const { request, id } = await failedWebhook();
    expect((await repeat(id)).status).toBe(200);
    await until('it is told', async () => (await settled(request)).items.some((one) => one.id === id && one.state === 'sent'));
    expect(pager.calls.filter((call) => call.headers['webhook-id'] === id)).toHaveLength(2);
    expect((await witnessed('delivery.repeated')).at(-1)).toContain(`"delivery":"${id}"`);
    // Once more, though it arrived: the receiver may have lost it.
    expect((await repeat(id)).status).toBe(200);
    await until('it is told again', () => pager.calls.filter((call) => call.headers['webhook-id'] === id).length === 3);

    const other = await failedWebhook();
    const admin = await loginAs(house.url, 'admin');
    const answer = await admin.submit(`/deliveries/${other.id}/repeat`, { request: other.request });
    expect(answer.status).toBe(303);
    expect(answer.headers.get('location')).toBe(`/requests/${other.request}?did=repeated`);
    await until('it is told', () => pager.calls.filter((call) => call.headers['webhook-id'] === other.id).length === 2);
  });

  test('nobody else may; only webhooks, and only what does not wait already; each refusal is witnessed', async () => {
    const { request, id } = await failedWebhook();
    for (const [person, code] of [
      ['oncall', 'not_eligible'],
      ['lead', 'not_eligible'],
      ['auditor', 'not_eligible'],
      ['stranger', 'not_found'],
    ] as const)
      expect([person, (await repeat(id, person)).body.code]).toEqual([person, code]);
    expect((await repeat(`dlv_${'0'.repeat(32)}`)).body.code).toBe('not_found');
    expect((await repeat('dlv_1')).body.code).toBe('bad_input');
    const mail = (await toldOf(request, 'admin')).items.find((one) => one.channel === 'email' && one.state === 'sent');
    expect((await repeat(mail!.id)).body.code).toBe('delivery_not_repeatable');
    pager.answer = () => 500;
    const { id: waiting } = await ask(house);
    const hook = (await settled(waiting, 'admin')).items.find((one) => one.channel === 'webhook');
    expect(hook).toMatchObject({ state: 'waiting', repeatable: false });
    expect((await repeat(hook!.id)).body.code).toBe('delivery_not_repeatable');
    const refused = (await witnessed('access.refused')).filter((line) => line.includes('"repeat-delivery"'));
    for (const code of ['not_eligible', 'not_found', 'delivery_not_repeatable'])
      expect(
        refused.some((line) => line.includes(`"code":"${code}"`)),
        code,
      ).toBe(true);
  });
});

test('channels that are down leave the server ready, with one line each in the log', async () => {
  // Whatever failed before works again first.
  await settled((await ask(house)).id);
  await until('all works', () => house.running.workers!.tellingFails().length === 0);
  house.logged.length = 0;
  post.faults = { greeting: 421 };
  pager.answer = () => 500;
  for (let n = 0; n < 3; n++) await settled((await ask(house)).id);
  const ready = await fetch(`${house.url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([200, { status: 'ready', faults: [], warnings: [] }]);
  expect(house.running.workers!.tellingFails().join()).toMatch(/email: the mail server answered 421.*webhook pager: answered 500/);
  expect(house.logged.filter((line) => line.includes('"notify_failing"'))).toHaveLength(2);
});

test('the page of a request that is open says at once when somebody has been told', async () => {
  const { request } = await granted(house);
  const browser = await loginAs(house.url, 'lead');
  const stream = await browser.fetch('/events');
  const reader = stream.body!.getReader();
  const heard = (async () => {
    for (let text = ''; ; ) {
      const { value, done } = await reader.read();
      text += Buffer.from(value ?? []).toString();
      if (done || text.includes('event: changed')) return text;
    }
  })();
  await (await house.apiAs('oncall')).post(
    `/grants/${(await (await house.apiAs('oncall')).get<{ grant: { id: string } }>(`/requests/${request}`)).body.grant.id}/return`,
  );
  expect(await heard).toContain('event: changed');
  await reader.cancel();
});
