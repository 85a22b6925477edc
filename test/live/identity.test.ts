/** Login and step-up against Keycloak, an identity provider that we did not write, by people in a real browser. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { makeLog, type Running, startProcess } from '../../src/compose.ts';
import { parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { startBrowser } from '../support/browser.ts';
import { freePort, until } from '../support/house.ts';
import { writeConfig } from '../support/house-config.ts';
import { type TestDatabase, type TestTarget, testDatabase, testTarget } from '../support/postgres.ts';
import { type Keycloak, startKeycloak } from './servers/keycloak.ts';

const users = [
  { name: 'oncall', password: 'a password of oncall', groups: ['oncall'] },
  { name: 'lead', password: 'a password of lead', groups: ['leads'] },
  { name: 'leaver', password: 'a password of leaver', groups: ['leads'] },
];
const entitlements = ({ groupRole }: TestTarget): string =>
  [
    ['orders-plain', ''],
    ['orders-fresh', 'stepUp: { maxAge: 20s }'],
  ]
    .map(
      ([name, more]) => `
  ${name}:
    opens: read the orders database
    target: orders-db
    grant: { role: ${groupRole} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h
    ${more}`,
    )
    .join('');

const undo: (() => Promise<unknown>)[] = [];
let url: string;
let keycloak: Keycloak;
let database: TestDatabase;
let running: Running;
let browser: Browser;
let oncall: Page;
let lead: Page;
let leaver: Page;

beforeAll(async () => {
  const folder = await mkdtemp(join(inject('server').folder, 'identity-'));
  undo.push(() => rm(folder, { recursive: true, force: true }));
  url = `http://127.0.0.1:${await freePort()}`;
  keycloak = await startKeycloak({ clientSecret: 'the test client has this secret', redirectUri: `${url}/login/callback`, users });
  undo.push(() => keycloak.stop());
  database = await testDatabase();
  undo.push(() => database.close());
  const target = await testTarget();
  undo.push(() => target.close());
  const { file, text } = await writeConfig(folder, { url, issuer: keycloak.issuer, database, target }, { entitlements });
  // Keycloak has no scope `groups`: a mapper of the client puts the claim into the token.
  const config = await parseConfig(file, text.replace('scopes: [openid, profile, groups]', 'scopes: [openid, profile, email]'), providerOf);
  running = await startProcess(config, { web: true, worker: true, log: makeLog('error') });
  undo.push(() => running.stop());
  browser = await startBrowser();
  undo.push(() => browser.close());
  [oncall, lead, leaver] = [await logIn('oncall'), await logIn('lead'), await logIn('leaver')] as const;
});
afterAll(async () => {
  await database?.superuser.query(`UPDATE access_grant SET ends_at = greatest(now(), starts_at + interval '1 ms') WHERE state IN ('scheduled', 'active')`);
  for (const step of undo.reverse()) await step();
});

async function newPage(): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 } });
  context.setDefaultTimeout(20_000);
  return context.newPage();
}

/** Keycloak's own page. It leaves out the name where it knows who must prove it again. */
async function typePassword(page: Page, name: string): Promise<void> {
  await page.locator('#password').waitFor();
  const field = page.locator('#username');
  if ((await field.count()) > 0 && (await field.isEditable())) await field.fill(name);
  await page.fill('#password', `a password of ${name}`);
  await page.locator('#kc-login').click();
}

async function logIn(name: string, page?: Page): Promise<Page> {
  const made = page ?? (await newPage());
  await made.goto(`${url}/`);
  await made.getByRole('button', { name: 'Log in' }).click();
  await typePassword(made, name);
  await made.waitForURL(`${url}/`);
  return made;
}

const person = async (name: string) =>
  (await database.superuser.query(`SELECT groups, email, groups_read_at > now() - interval '30 s' AS fresh FROM person WHERE name LIKE $1`, [`${name}%`]))
    .rows[0];
const groupsAreOld = (name: string) =>
  database.superuser.query(`UPDATE person SET groups_read_at = now() - interval '16 minutes' WHERE name LIKE $1`, [`${name}%`]);
const stateOf = async (request: string) => (await database.superuser.query('SELECT state FROM request WHERE id = $1', [request])).rows[0]?.state;
const refusals = async (request: string) =>
  (
    await database.superuser.query<{ code: string }>(
      `SELECT line::jsonb #>> '{data,code}' AS code FROM audit_event WHERE type = 'decision.refused' AND request_id = $1 ORDER BY position`,
      [request],
    )
  ).rows.map(({ code }) => code);

/** Someone on call asks; gives the request's id. */
async function asked(entitlement: string): Promise<string> {
  await oncall.goto(`${url}/ask`);
  await oncall.locator(`input[value=${entitlement}]`).check();
  await oncall.fill('#why', 'the queue grows');
  await oncall.getByRole('button', { name: 'Ask', exact: true }).click();
  const again = oncall.getByRole('button', { name: /^Go to / });
  await oncall.waitForURL(/\/requests\/req_|\/login\?/);
  if (oncall.url().includes('/login?')) {
    await again.click();
    await typePassword(oncall, 'oncall');
    await oncall.waitForURL(/\/ask\?draft=/);
    expect(await oncall.inputValue('#why')).toBe('the queue grows');
    await oncall.getByRole('button', { name: 'Ask', exact: true }).click();
    await oncall.waitForURL(/\/requests\/req_/);
  }
  return /req_[0-9a-f]{32}/.exec(oncall.url())?.[0] ?? '';
}

test('login: the person, their groups and their mail address come from Keycloak, with the time of the proof', async () => {
  expect(await person('oncall')).toEqual({ groups: ['oncall'], email: 'oncall@example.com', fresh: true });
  const me = (await (await oncall.request.get(`${url}/api/v1/me`)).json()) as { authAt: string; via: string };
  expect(me.via).toBe('web');
  expect(Math.abs(Date.now() - Date.parse(me.authAt))).toBeLessThan(120_000);
});

test('max_age: Keycloak asks for the password again, the typed reason survives, and one press decides', async () => {
  const request = await asked('orders-fresh');
  await lead.goto(`${url}/requests/${request}`);
  // The login of this person began before the request was asked for.
  await sleep(21_000);
  await lead.fill('#reason', 'checked with the <team>');
  await lead.getByRole('button', { name: /^Approve for/ }).click();
  await lead.waitForURL(/\/login\?/);
  expect(await lead.textContent('.sub')).toContain('at most 20 seconds old');
  expect(await refusals(request)).toEqual(['step_up_required']);
  await lead.getByRole('button', { name: /^Go to / }).click();
  await typePassword(lead, 'lead');
  await lead.waitForURL(/\/requests\/req_.*draft=/);
  expect(await stateOf(request)).toBe('pending');
  expect(await lead.inputValue('#reason')).toBe('checked with the <team>');
  await lead.getByRole('button', { name: /^Approve for/ }).click();
  await until('approved', async () => (await stateOf(request)) === 'approved');
});

test('a silent login reads groups again without a page of Keycloak', async () => {
  const request = await asked('orders-plain');
  await groupsAreOld('lead');
  const visited: string[] = [];
  const note = (frame: { url(): string }) => void visited.push(frame.url());
  lead.on('framenavigated', note);
  await lead.goto(`${url}/requests/${request}`);
  lead.off('framenavigated', note);
  expect(visited).toEqual([`${url}/requests/${request}`]);
  expect(await person('lead')).toMatchObject({ fresh: true });
  await lead.fill('#reason', 'fine');
  await lead.getByRole('button', { name: 'Deny' }).click();
  await until('denied', async () => (await stateOf(request)) === 'denied');
});

test('groups that changed between request and decision: who lost the group decides nothing', async () => {
  const request = await asked('orders-plain');
  await leaver.goto(`${url}/requests/${request}`);
  await leaver.fill('#reason', 'typed while I still could');
  await groupsAreOld('leaver');
  await keycloak.setGroups('leaver', ['oncall']);
  await leaver.getByRole('button', { name: /^Approve for/ }).click();
  await leaver.waitForURL(/\/requests\/req_.*draft=/);
  expect(await leaver.textContent('h1')).toBe('There is nothing here');
  expect(await person('leaver')).toMatchObject({ groups: ['oncall'], fresh: true });
  expect([await refusals(request), await stateOf(request)]).toEqual([['groups_stale'], 'pending']);
  await keycloak.setGroups('leaver', ['leads']);
});

test('who is in no group at all is sent without the claim by Keycloak: that is refused in words, and the old groups count no more', async () => {
  const request = await asked('orders-plain');
  await logInAgain(leaver, 'leaver');
  await groupsAreOld('leaver');
  await keycloak.setGroups('leaver', []);
  await leaver.goto(`${url}/requests/${request}`);
  expect(await leaver.textContent('h1')).toBe('That login was not accepted');
  expect(await person('leaver')).toMatchObject({ groups: [] });
  await leaver.goto(`${url}/requests/${request}?login=tried`);
  expect(await leaver.textContent('h1')).toBe('There is nothing here');
  expect(await stateOf(request)).toBe('pending');
  await keycloak.setGroups('leaver', ['leads']);
});

test('a disabled user gets nothing new: neither silently nor with the password', async () => {
  const request = await asked('orders-plain');
  await logInAgain(leaver, 'leaver');
  await keycloak.setEnabled('leaver', false);
  await groupsAreOld('leaver');
  await leaver.goto(`${url}/requests/${request}`);
  expect(leaver.url()).toBe(`${url}/requests/${request}?login=tried`);
  await leaver.fill('#reason', 'I was disabled');
  await leaver.getByRole('button', { name: /^Approve for/ }).click();
  await leaver.waitForURL(/\/login\?.*again=1/);
  await leaver.getByRole('button', { name: /^Go to / }).click();
  await typePassword(leaver, 'leaver');
  await leaver
    .getByText(/disabled/i)
    .first()
    .waitFor();
  expect([await refusals(request), await stateOf(request)]).toEqual([['groups_stale'], 'pending']);
  expect(await person('leaver')).toMatchObject({ fresh: false });
});

/** A login by the page of Keycloak, whatever was there before. */
async function logInAgain(page: Page, name: string): Promise<void> {
  await page.context().clearCookies();
  await logIn(name, page);
}

test('Keycloak changes its keys while Halligan runs: logins work again within the minute between two key fetches', async () => {
  await keycloak.rotateKeys();
  const began = Date.now();
  for (;;) {
    const page = await newPage();
    await page.goto(`${url}/`);
    await page.getByRole('button', { name: 'Log in' }).click();
    await typePassword(page, 'lead');
    await page.waitForURL((at) => at.href.startsWith(url));
    const came = page.url();
    await page.context().close();
    if (came === `${url}/`) break;
    expect(Date.now() - began).toBeLessThan(75_000);
    await sleep(3_000);
  }
  console.log(`keycloak: logins worked again ${Math.round((Date.now() - began) / 1_000)} s after the keys were changed`);
});
