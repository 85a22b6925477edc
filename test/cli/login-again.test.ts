/** A terminal whose login is too old for a call: it logs in again, and makes the very same call once more. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { exit } from '../../src/cli/exit-codes.ts';
import { wordsOf } from '../../src/cli/fault.ts';
import { readSession, writeSession } from '../../src/cli/session.ts';
import type { Terminal } from '../../src/cli/terminal.ts';
import { decide } from '../../src/cli/verbs/decide.ts';
import { login, whoami } from '../../src/cli/verbs/login.ts';
import { request } from '../../src/cli/verbs/request.ts';
import { approachCallback, type Browserless, csrfOf, follow, locationOf, loginAs, newBrowserless } from '../../src/demo/browserless.ts';
import { type House, until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { groupsAre, loginsAre, refusalsOf, startStepUpHouse } from '../support/step-up-house.ts';
import { newSeat } from './run-cli.ts';

let house: House;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  house = await startStepUpHouse();
});
afterAll(() => house?.close());
beforeEach(async () => {
  env = { HALLIGAN_HOME: await mkdtemp(join(inject('server').folder, 'again-')) };
});
afterEach(() => rm(env['HALLIGAN_HOME'] ?? '', { recursive: true, force: true }));

/** A terminal with somebody at it, as far as the command can see; `answers` are what they type. */
function terminal(...answers: string[]): Terminal & { said(): string; put(): string } {
  const [out, err] = [{ text: '' }, { text: '' }];
  const sink = (into: { text: string }, onText?: (text: string) => void) =>
    Object.assign(
      new Writable({
        write(chunk, _encoding, done) {
          into.text += String(chunk);
          onText?.(String(chunk));
          done();
        },
      }),
      { isTTY: true, columns: 200 },
    );
  const stdin = Object.assign(new PassThrough(), { isTTY: true });
  const asks = (text: string): void => {
    if (/[?:)] (\[y\/N\] )?$/.test(text) && answers.length > 0) stdin.write(`${answers.shift()}\n`);
  };
  return { env, stdin, stdout: sink(out), stderr: sink(err, asks), interrupted: new AbortController().signal, said: () => err.text, put: () => out.text };
}

const tokenFor = async (person: string, way: 'address' | 'device' = 'address') => {
  const token = await house.tokenOf(person);
  house.forgetToken(person);
  await writeSession(env, { server: house.url, token, name: person, way });
  return token;
};

/** The page that the terminal printed, opened by somebody in a browser of theirs, through every page that stands in between. */
async function inTheBrowser(shown: { said(): string }, browser: Browserless & { csrf: string }, person: string): Promise<Record<string, string>> {
  const address = await until('the terminal prints an address', () => /http:\S+\/login\/cli\?\S+/.exec(shown.said())?.[0]);
  const first = await browser.fetch(address);
  if (first.status === 303) {
    const between = locationOf(first);
    const { returnTo = '/', ...wish } = Object.fromEntries(between.searchParams);
    // A silent login is at the provider already, and asks nobody.
    if (between.pathname === '/login') await browser.fetch(await approachCallback(browser, person, returnTo, { wish }));
    else await follow(browser, between);
  }
  browser.csrf = await csrfOf(browser, '/logins');
  const asked = Object.fromEntries(new URL(address).searchParams);
  const { max_age: _, acr_values: __, groups_max_age: ___, ...fields } = asked;
  const went = locationOf(await browser.submit('/login/cli', { ...fields, decision: 'confirm' }));
  expect((await fetch(went)).status).toBe(200);
  return asked;
}

test('break-glass with an old login: why, the login, and the same call once more under the same key', async () => {
  const old = await tokenFor('oncall');
  await loginsAre(house, 'oncall', 400);
  const at = terminal();
  const running = request(at, ['orders-plain'], { for: '10m', reason: 'the site is down', breakGlass: true, wait: true, idempotencyKey: 'glass-1' });
  const asked = await inTheBrowser(at, newBrowserless(house.url) as Browserless & { csrf: string }, 'oncall');
  expect(asked).toMatchObject({ max_age: '300', groups_max_age: '900' });
  expect(await running).toBe(exit.ok);
  expect(at.said()).toContain('This needs a login that is at most 5 minutes old. You log in again now');
  expect(at.put()).toMatch(/gnt_[0-9a-f]{32}/);
  const { rows } = await house.database.superuser.query(`SELECT r.reason FROM idempotency i JOIN request r ON r.id = i.object_id WHERE i.key = 'glass-1'`);
  expect(rows).toEqual([{ reason: 'the site is down' }]);
  const kept = await readSession(env);
  expect(kept?.token).not.toBe(old);
  expect(kept?.way).toBe('address');
  expect((await fetch(`${house.url}/api/v1/me`, { headers: { authorization: `Bearer ${old}` } })).status).toBe(401);
});

test('approving on old groups: the browser reads them silently, the typed reason goes out once', async () => {
  await house.tokenOf('oncall');
  await loginsAre(house, 'oncall', 0);
  await groupsAre(house, 'oncall', 0);
  const waiting = await ask(house, { entitlement: 'orders-plain' });
  await tokenFor('lead');
  const browser = (await loginAs(house.url, 'lead')) as Browserless & { csrf: string };
  await groupsAre(house, 'lead', 1_000);
  const at = terminal('read it, fine', 'y');
  const running = decide(at, 'approve', waiting.id, {});
  const asked = await inTheBrowser(at, browser, 'lead');
  expect(asked['groups_max_age']).toBe('900');
  expect(await running).toBe(exit.ok);
  expect(at.said().match(/Reason \(kept for ever/g)).toHaveLength(1);
  const { rows } = await house.database.superuser.query('SELECT reason, via FROM decision WHERE request_id = $1', [waiting.id]);
  expect(rows).toEqual([{ reason: 'read it, fine', via: 'cli' }]);
  expect(await refusalsOf(house, 'decision.refused', { request: waiting.id })).toEqual(['groups_stale']);
});

test('attack: somebody else logs in in between: the call is not made again, their new login is ended, the old one stays', async () => {
  const old = await tokenFor('oncall');
  await loginsAre(house, 'oncall', 700);
  const at = terminal();
  const running = request(at, ['orders-fresh'], { for: '10m', reason: 'why', wait: false }).catch((error: unknown) => wordsOf(error));
  await inTheBrowser(at, newBrowserless(house.url) as Browserless & { csrf: string }, 'oncall-2');
  expect(await running).toMatchObject({ exitCode: exit.notLoggedIn, message: expect.stringContaining('was not made again') });
  expect((await readSession(env))?.token).toBe(old);
  const { rows } = await house.database.superuser.query(`SELECT FROM token t JOIN person p ON p.id = t.person_id WHERE p.subject = 'oncall-2'`);
  expect(rows).toEqual([]);
});

test('a login by code goes by code again, with the need in the address', async () => {
  await tokenFor('oncall', 'device');
  await loginsAre(house, 'oncall', 700);
  const at = terminal();
  const running = request(at, ['orders-fresh'], { for: '10m', reason: 'why', wait: false });
  const code = await until('the terminal prints a code', () => /\n {4}([A-Z]{4}-[A-Z]{4})\n/.exec(at.said())?.[1]);
  expect(at.said()).toContain('/device?max_age=600 in any browser');
  const browser = (await loginAs(house.url, 'oncall')) as Browserless & { csrf: string };
  expect((await browser.submit('/device/decide', { user_code: code, decision: 'confirm' })).status).toBe(200);
  expect(await running).toBe(exit.pending);
  expect((await readSession(env))?.way).toBe('device');
});

test('nobody at the terminal: exit 4, in words, with what to do; and nothing was done', async () => {
  const token = await tokenFor('oncall');
  await loginsAre(house, 'oncall', 700);
  const seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: token });
  const own = await newSeat({ HALLIGAN_HOME: env['HALLIGAN_HOME'] });
  try {
    const args = ['request', 'orders-fresh', '--for', '10m', '--reason', 'why', '--no-wait'] as const;
    const byToken = await seat.run(...args);
    expect([byToken.code, byToken.out]).toEqual([4, '']);
    expect(byToken.err).toContain(
      'This needs a login that is at most 10 minutes old. The login in HALLIGAN_TOKEN cannot be renewed from here, so nothing was done.',
    );
    const byFile = await own.run(...args);
    expect(byFile.code).toBe(4);
    expect(byFile.err).toContain('Nobody is at this terminal to log in again, so nothing was done.');
    expect(byFile.err).toContain('next: halligan login --max-age 600s, and run it again.');
  } finally {
    await seat.close();
    await own.close();
  }
});

test('login --max-age asks the browser for a fresh proof', async () => {
  const at = terminal();
  const browser = (await loginAs(house.url, 'lead-2')) as Browserless & { csrf: string };
  await loginsAre(house, 'lead-2', 700);
  const running = login(at, { server: house.url, browser: false, maxAge: '10m' });
  expect((await inTheBrowser(at, browser, 'lead-2'))['max_age']).toBe('600');
  expect(await running).toBe(exit.ok);
  expect(await whoami(at, {})).toBe(exit.ok);
  const { rows } = await house.database.superuser.query(
    `SELECT t.auth_at > now() - interval '1 minute' AS fresh FROM token t JOIN person p ON p.id = t.person_id WHERE subject = 'lead-2'`,
  );
  expect(rows).toEqual([{ fresh: true }]);
});
