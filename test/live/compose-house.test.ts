/**
 * The house of docker-compose.yml as processes: two API processes, two workers, PostgreSQL, Redis, OpenBao, Keycloak and the
 * proxy, out of the file's own configs, scripts and health checks. People log in at Keycloak; one of each kind of process is
 * killed while access is open; everything ends on time, is read back as gone, and is witnessed.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { type Browserless, csrfOf, locationOf, newBrowserless } from '../support/browserless-login.ts';
import { type Api, apiOf, until } from '../support/house.ts';
import { type ClaimedAnswer, connectWith, loginAnswer } from '../support/house-verbs.ts';
import { type ComposeHouse, startComposeHouse } from './compose-house.ts';
import { runTool } from './servers/install.ts';

let house: ComposeHouse;
let orders: pg.Pool;
let halligan: pg.Pool;
const tokens: Record<string, string> = {};
const as = (name: string): Api => apiOf(house.url, tokens[name] ?? '');
const admin = (database: string): pg.Pool => {
  const pool = new pg.Pool({ connectionString: house.postgres.superuserUrl.replace(/\/postgres$/, `/${database}`), max: 2 });
  pool.on('error', () => undefined);
  return pool;
};

beforeAll(async () => {
  const began = Date.now();
  house = await startComposeHouse(inject('server').folder);
  console.log(`compose: all of it was up after ${Math.round((Date.now() - began) / 1_000)} s`);
  [orders, halligan] = [admin('orders'), admin('halligan')];
  for (const name of ['oncall', 'lead', 'auditor', 'admin']) tokens[name] = await terminalOf(name);
});
afterAll(async () => {
  await orders?.end();
  await halligan?.end();
  await house?.close();
});

/** A person at Keycloak's own page, with the password that the setup made and showed. */
async function logIn(name: string): Promise<Browserless> {
  const browser = newBrowserless(house.url);
  const page = await browser.fetch(locationOf(await browser.submit('/login', { returnTo: '/' })));
  const action = /<form[^>]* action="([^"]+)"/.exec(await page.text())?.[1]?.replaceAll('&amp;', '&') ?? '';
  const fields = { username: name, password: house.passwords[name] ?? '', credentialId: '' };
  const back = locationOf(await browser.fetch(action, { method: 'POST', body: new URLSearchParams(fields) }));
  expect(back.href).toMatch(new RegExp(`^${house.url}/login/callback\\?`));
  const answer = await browser.fetch(back);
  expect([answer.status, await answer.text()]).toEqual([303, expect.anything()]);
  browser.csrf = await csrfOf(browser, '/logins');
  return browser;
}

/** A terminal's token, as `halligan login` gets it. */
async function terminalOf(name: string): Promise<string> {
  const browser = await logIn(name);
  const verifier = randomBytes(32).toString('base64url');
  const ask = {
    redirect_uri: 'http://127.0.0.1:1/callback',
    state: randomBytes(16).toString('base64url'),
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    label: 'a terminal',
  };
  const code = locationOf(await browser.submit('/login/cli', { ...ask, decision: 'confirm' })).searchParams.get('code') ?? '';
  const answer = await apiOf(house.url, null).post<{ token: string }>('/login/token', { code, code_verifier: verifier, redirect_uri: ask.redirect_uri });
  expect(answer.status).toBe(200);
  return answer.body.token;
}

/** `halligan …` at the terminal of this person. */
const terminal = (name: string, ...args: string[]): Promise<string> =>
  runTool(process.execPath, ['bin/halligan.js', ...args], {
    env: { ...process.env, HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: tokens[name] ?? '', HALLIGAN_HOME: join(house.folder, 'home') },
  });

interface System {
  readonly processes: { host: string; roles: string[]; queue: string | null; troubles: string[] }[];
}
const alive = async (): Promise<string[]> =>
  (JSON.parse(await terminal('admin', 'status', '--system', '-o', 'json')) as System).processes
    .map(({ host, roles, queue }) => `${host} ${roles.join('+')} ${queue ?? '–'}`)
    .sort();

/** On call asks for both ways into the orders database, and the lead approves. Gives the grant. */
async function granted(duration: string): Promise<{ grant: string; endsAt: number }> {
  const entitlements = ['orders-readonly', 'orders-vault'];
  const asked = await as('oncall').post<{ id: string; seen: string }>('/requests', { entitlements, duration, reason: 'checkout errors' });
  expect([asked.status, asked.text]).toEqual([201, expect.anything()]);
  const decision = { decision: 'approve', reason: 'go on', seen: asked.body.seen };
  const own = await as('oncall').post(`/requests/${asked.body.id}/decisions`, decision);
  expect(own.body.code).toBe('self_decision');
  const decided = await as('lead').post<{ grant: { id: string; endsAt: string } }>(`/requests/${asked.body.id}/decisions`, decision);
  expect([decided.status, decided.text]).toEqual([200, expect.anything()]);
  return { grant: decided.body.grant.id, endsAt: Date.parse(decided.body.grant.endsAt) };
}

async function claim(grant: string, entitlement: string): Promise<ClaimedAnswer> {
  const answer = await as('oncall').post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement });
  expect([answer.status, answer.status === 201 ? '' : answer.text]).toEqual([201, '']);
  return answer.body;
}

const leasesOf = async (grant: string): Promise<{ state: string; read_back_at: Date | null }[]> =>
  (await halligan.query<{ state: string; read_back_at: Date | null }>('SELECT state, read_back_at FROM lease WHERE grant_id = $1', [grant])).rows;
const loginsAtTarget = async (): Promise<string[]> =>
  (await orders.query<{ rolname: string }>(`SELECT rolname FROM pg_roles WHERE rolname LIKE 'hg\\_%' OR rolname LIKE 'v-%'`)).rows.map((row) => row.rolname);

test('all four processes are alive under their own names, and share the queue on Redis', async () => {
  await until('all are seen', async () => (await alive()).length === 4, 15_000);
  expect(await alive()).toEqual(['api-1 web –', 'api-2 web –', 'worker-1 worker redis', 'worker-2 worker redis']);
  for (const [name, child] of house.children) if (/^(api|worker)-/.test(name)) expect(child.output(), name).not.toMatch(/"level":"(warn|error)"/);
});

test('the check of the targets is content with the rights that the setup gave', async () => {
  const said = JSON.parse(await house.runOnce('api-1', 'doctor', '-o', 'json')) as {
    ok: boolean;
    targets: { target: string; faults: { message: string }[] }[];
  };
  expect(said.targets.map(({ target, faults }) => [target, faults])).toEqual([
    ['orders-db', []],
    ['orders-vault', []],
    ['redis', []],
  ]);
  expect(said.ok).toBe(true);
});

test('the main job with one API process and one worker killed in the middle', async () => {
  const { grant, endsAt } = await granted('25s');
  const claims = [await claim(grant, 'orders-readonly'), await claim(grant, 'orders-vault')];
  const sessions = await Promise.all(claims.map(connectWith));
  for (const session of sessions) expect((await session.query('SELECT count(*)::int AS n FROM orders')).rows[0]).toEqual({ n: 400 });
  const cutAt = sessions.map((session) => new Promise<number>((cut) => session.once('end', () => cut(Date.now()))));

  house.children.get('api-1')?.process.kill('SIGKILL');
  house.children.get('worker-1')?.process.kill('SIGKILL');
  // At most a call that was under way at the dead one is lost; the proxy sends new ones to the other at once.
  const answers: number[] = [];
  for (let call = 0; call < 20; call++) answers.push((await as('oncall').get('/me')).status);
  expect(answers.every((status) => status === 200)).toBe(true);
  expect(Date.now()).toBeLessThan(endsAt);

  const late = (await Promise.all(cutAt)).map((at) => at - endsAt);
  console.log(`compose: sessions were cut ${late.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(' (PostgreSQL) and ')} (OpenBao) after the end`);
  for (const ms of late) expect(ms).toBeGreaterThan(-1_000);
  for (const ms of late) expect(ms).toBeLessThan(10_000);
  await until(
    'both are read back as gone',
    async () => (await leasesOf(grant)).every(({ state, read_back_at }) => state === 'revoked' && read_back_at !== null),
    20_000,
  );
  for (const claimed of claims) expect(await loginAnswer(claimed)).toBe('28P01');
  expect(await loginsAtTarget()).toEqual([]);
});

test('what was killed and started again is alive again, and who stays dead is seen no more', async () => {
  await house.start('worker-1');
  const others = ['api-2 web –', 'worker-1 worker redis', 'worker-2 worker redis'];
  await until('the dead are seen no more', async () => (await alive()).join() === others.join(), 75_000);
  await house.start('api-1');
  await until('all are seen', async () => (await alive()).length === 4, 15_000);
});

test('the log verifies by what was published on the volume that all four share', async () => {
  await sleep(3_000);
  const [log, notes] = [join(house.folder, 'export.jsonl'), join(house.folder, 'checkpoints.txt')];
  await terminal('auditor', 'audit', 'export', '--out', log, '--checkpoints', notes);
  const key = await readFile(join(house.folder, 'setup/own/audit.key.pub'), 'utf8');
  const said = await terminal('auditor', 'audit', 'verify', log, '--checkpoints', notes, '--key', key.trim());
  console.log(`compose: ${said.trim().split('\n')[0]}`);
  const published = await readdir(join(house.folder, 'volumes/checkpoints'));
  expect(published).toEqual(expect.arrayContaining(['checkpoints.jsonl', 'latest']));
  const types = new Set([...(await readFile(log, 'utf8')).matchAll(/"type":"([a-z.-]+)"/g)].map((match) => match[1]));
  expect([...types]).toEqual(expect.arrayContaining(['request.submitted', 'decision.refused', 'grant.ended', 'lease.revoked']));
});

test('a second start makes no secret anew, and prepares OpenBao again without harm', async () => {
  const made = () => readFile(join(house.folder, 'setup/own/made.json'), 'utf8');
  const before = await made();
  const said = await house.runOnce('setup');
  expect(await made()).toBe(before);
  expect(said).toContain('The secrets of before are kept.');
  for (const password of [...Object.values(house.passwords), ...Object.values((JSON.parse(before) as { secrets: Record<string, string> }).secrets)])
    expect(said).not.toContain(password);
  await house.runOnce('openbao-setup');
  const { grant } = await granted('10m');
  const claimed = await claim(grant, 'orders-vault');
  expect(await loginAnswer(claimed)).toBe('let in');
  expect((await as('oncall').post(`/grants/${grant}/return`, {})).status).toBe(200);
  await until('given back', async () => (await loginsAtTarget()).length === 0, 20_000);
});

test('each process leaves in good order, and no secret stands in what any of them printed', async () => {
  const secrets = Object.values((JSON.parse(await readFile(join(house.folder, 'setup/own/made.json'), 'utf8')) as { secrets: Record<string, string> }).secrets);
  for (const [name, child] of house.children) {
    for (const secret of [...secrets, ...Object.values(house.passwords), ...Object.values(tokens)]) expect(child.output().includes(secret), name).toBe(false);
  }
  for (const name of ['worker-1', 'worker-2', 'api-1', 'api-2']) {
    const child = house.children.get(name)!;
    await child.stop();
    expect(child.process.exitCode, name).toBe(0);
  }
});
