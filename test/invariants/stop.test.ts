/** SIGTERM under load: what was begun is finished, nothing is cut half-way, and the process leaves by itself. */
import { spawn } from 'node:child_process';
import { afterEach, expect, test } from 'vitest';
import { loginAs } from '../support/browserless-login.ts';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { apiOf, type House, startTestHouse, until } from '../support/house.ts';
import { type ClaimedAnswer, claimed, granted, loginAnswer } from '../support/house-verbs.ts';
import { type TcpProxyDouble, tcpProxyDouble } from '../support/tcp-proxy-double.ts';

let house: House | undefined;
let child: ChildServer | undefined;
afterEach(async () => {
  await child?.kill();
  child = undefined;
  await house?.close();
  house = undefined;
});

test('told to stop while claims run: each claim is answered whole or never began, and the exit is 0', async () => {
  house = await startTestHouse({ server: 'none' });
  child = await startChild(house);
  const grants: string[] = [];
  for (let index = 0; index < 8; index++) grants.push((await granted(house)).grant);
  const oncall = apiOf(house.url, await house.tokenOf('oncall'));
  const claims = grants.map((grant) =>
    oncall.post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' }).catch((error: Error) => error),
  );
  await new Promise((resolve) => setTimeout(resolve, 15));
  const began = performance.now();
  expect(await child.stop()).toBe(0);
  expect(performance.now() - began).toBeLessThan(25_000);
  const said = child.output();
  child = undefined;
  const answers = await Promise.all(claims);
  const shown = answers.flatMap((answer) => (answer instanceof Error ? [] : [answer]));
  const { rows } = await house.database.superuser.query<{ id: string; state: string }>('SELECT id, state FROM lease');
  // Whoever has no answer has no lease: no secret was made and then lost.
  expect(rows.map((row) => row.state)).toEqual(shown.map(() => 'live'));
  for (const answer of shown) {
    expect(answer.status).toBe(201);
    expect(await loginAnswer(answer.body)).toBe('let in');
  }
  expect(said).not.toMatch(/"level":"(error|fatal)"/);
  const left = await house.database.superuser.query(
    `SELECT FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app' AND application_name LIKE 'halligan%'`,
    [house.database.name],
  );
  expect(left.rowCount).toBe(0);
}, 60_000);

/** `halligan serve` as it is started by hand, with the lines of its log. */
async function startServe() {
  const running = spawn(process.execPath, ['src/main.ts', 'serve', '--config', house!.configFile], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = new Promise<number | null>((resolve) => running.once('exit', (code) => resolve(code)));
  let said = '';
  running.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const hears = (code: string) => until(`it says ${code}`, () => said.includes(`"code":"${code}"`), 20_000);
  await hears('listening');
  return { running, exited, hears };
}

test('a second signal leaves at once, in the middle of ending a login; the next start goes on with it', async () => {
  let proxy: TcpProxyDouble | undefined;
  house = await startTestHouse({
    server: 'none',
    targetPort: async (real) => {
      proxy = await tcpProxyDouble(real);
      return proxy.port;
    },
  });
  const first = await startServe();
  try {
    const { grant } = await granted(house);
    const issued = await claimed(house, grant);
    proxy?.set('hang');
    expect((await (await house.apiAs('oncall')).post(`/grants/${grant}/return`)).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 500));
    first.running.kill('SIGTERM');
    await first.hears('stopping');
    // Within a second it would be the same press of a key, which a launcher passed on.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    const again = performance.now();
    first.running.kill('SIGTERM');
    expect(await first.exited).toBe(143);
    expect(performance.now() - again).toBeLessThan(500);
    proxy?.set('pass');

    const second = await startServe();
    const { superuser } = house.database;
    await until(
      'the login is gone',
      async () => (await superuser.query(`SELECT FROM lease WHERE id = $1 AND state = 'revoked'`, [issued.lease])).rowCount === 1,
      40_000,
    );
    second.running.kill('SIGTERM');
    expect(await second.exited).toBe(0);
  } finally {
    first.running.kill('SIGKILL');
    await proxy?.close();
  }
}, 90_000);

test('a target that hangs does not keep it for longer than 25 s, and a page that follows changes not at all', async () => {
  let proxy: TcpProxyDouble | undefined;
  house = await startTestHouse({
    server: 'none',
    targetPort: async (real) => {
      proxy = await tcpProxyDouble(real);
      return proxy.port;
    },
  });
  const serve = await startServe();
  try {
    const browser = await loginAs(house.url, 'oncall');
    const following = (await browser.fetch('/events')).text();
    const { grant } = await granted(house);
    await claimed(house, grant);
    proxy?.set('hang');
    await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const began = performance.now();
    serve.running.kill('SIGTERM');
    await following;
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(await serve.exited).toBe(0);
    expect(performance.now() - began).toBeLessThan(26_000);
  } finally {
    serve.running.kill('SIGKILL');
    await proxy?.close();
  }
}, 90_000);
