/** The console in a real browser, on a whole Halligan: what a tired person sees, presses and gets. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type House, startHouse } from '../../src/demo/house.ts';
import { logInWithBrowser, type Person, startBrowser } from '../support/browser.ts';

let folder: string;
let house: House;
let browser: Browser;
let oncall: Person;
let lead: Person;
let auditor: Person;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-e2e-'));
  house = await startHouse({ dataDirectory: folder, log: () => undefined, port: 0, providerPort: 0 });
  browser = await startBrowser();
  oncall = await logInWithBrowser(browser, house.url, 'oncall');
  lead = await logInWithBrowser(browser, house.url, 'lead', { colorScheme: 'dark' });
  auditor = await logInWithBrowser(browser, house.url, 'auditor');
}, 90_000);

afterAll(async () => {
  await browser?.close();
  await house?.stop();
  await rm(folder, { recursive: true, force: true });
  if (house) await rm(house.postgres.dataDirectory, { recursive: true, force: true });
});

async function ask(page: Page, entitlement: string, why: string): Promise<string> {
  await page.goto(`${house.url}/ask`);
  await page.locator(`input[value=${entitlement}]`).check();
  await page.fill('#why', why);
  await page.fill('#incident', 'INC-4312');
  await page.getByRole('button', { name: 'Ask', exact: true }).click();
  await page.waitForURL(/\/requests\/req_/);
  return page.url().split('?')[0] ?? '';
}

const loginWorks = async (command: string, password: string): Promise<boolean> => {
  const field = (name: string) => new RegExp(`${name}=(\\S+?)["\\s]`).exec(`${command} `)?.[1] ?? '';
  const client = new pg.Client({
    host: field('host'),
    port: Number(field('port')),
    database: field('dbname'),
    user: field('user'),
    password,
    connectionTimeoutMillis: 5_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query('SELECT count(*) FROM orders')).rowCount === 1;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
};

describe('the main job, by hand', () => {
  test('ask, decide, claim, use, give back; every change is on the other page within 2 s without a reload', async () => {
    await lead.page.goto(`${house.url}/decide`);
    const url = await ask(oncall.page, 'orders-readonly', 'Checkout errors since 02:50.');
    await lead.page.getByRole('link', { name: /oncall asks to read the orders database for 1 hour/ }).waitFor({ timeout: 2_000 });
    await lead.page.goto(url);
    expect(await lead.page.locator('h1').textContent()).toBe('oncall asks to read the orders database for 1 hour');
    expect(await lead.page.locator('main').textContent()).toContain('SELECT on 3 tables of orders');
    await lead.page.fill('#reason', 'go ahead, read only');
    await lead.page.getByRole('button', { name: 'Approve for 1 hour' }).click();
    await lead.page.getByText('Approved.').waitFor();

    await oncall.page.getByRole('button', { name: 'Claim a login' }).waitFor({ timeout: 2_000 });
    await oncall.page.getByRole('button', { name: 'Claim a login' }).click();
    const secret = oncall.page.locator('#secret');
    await secret.waitFor();
    const command = String(await secret.locator('dd').first().textContent());
    const password = String(await secret.locator('[data-secret]').textContent());
    expect(password.length).toBeGreaterThan(20);
    expect(await loginWorks(command, password)).toBe(true);
    await oncall.page.goto(url);
    expect(await oncall.page.content()).not.toContain(password);

    await oncall.page.goto(`${house.url}/`);
    await lead.page.goto(url);
    await oncall.page.getByRole('button', { name: 'Give back' }).first().click();
    await lead.page.getByText('gone, returned').waitFor({ timeout: 2_000 });
    expect(await loginWorks(command, password)).toBe(false);
  });

  test('nobody decides on their own request: the page does not offer it, and the form is refused in words', async () => {
    const url = await ask(oncall.page, 'orders-readonly', 'Trying to help myself.');
    expect(await oncall.page.getByRole('button', { name: /Approve/ }).count()).toBe(0);
    await oncall.page.evaluate((action) => {
      const form = document.createElement('form');
      form.method = 'post';
      form.action = action;
      const csrf = document.querySelector<HTMLInputElement>('input[name=_csrf]')?.value ?? '';
      for (const [name, value] of Object.entries({ _csrf: csrf, decision: 'approve', reason: 'me', seen: '0'.repeat(64) })) {
        const input = document.createElement('input');
        Object.assign(input, { name, value });
        form.append(input);
      }
      document.body.append(form);
      form.submit();
    }, `${url}/decide`);
    await oncall.page.getByText('Nobody decides on their own request').first().waitFor();
    await oncall.page.goto(url);
    await oncall.page.getByRole('button', { name: 'Withdraw' }).click();
    await oncall.page.getByText('Withdrawn.').waitFor();
  });

  test('break-glass says what it means, needs a tick, opens at once, and leaves a review for somebody else', async () => {
    const { page } = oncall;
    await page.goto(`${house.url}/ask?entitlement=orders-readonly&glass=1#glass`);
    expect(await page.locator('#glass').textContent()).toContain('opens at once');
    await page.fill('#why', 'Everything is down.');
    await page.locator('.chips label', { hasText: 'other' }).click();
    await page.fill('input[name=duration]', '6s');
    await page.getByRole('button', { name: 'Break glass now' }).click();
    await page.getByText('needs the tick').waitFor();
    expect(await page.inputValue('#why')).toBe('Everything is down.');
    await page.locator('input[name=sure]').check();
    await page.getByRole('button', { name: 'Break glass now' }).click();
    await page.getByText('The glass is broken').waitFor();
    await page.getByText('gone, expired').waitFor({ timeout: 12_000 });

    await lead.page.goto(`${house.url}/reviews`);
    await lead.page.locator('input[value=justified]').check();
    await lead.page.fill('textarea[name=notes]', 'Checkout was down, the reading was needed.');
    await lead.page.getByRole('button', { name: 'Close the review' }).click();
    await lead.page.getByText('The review is closed.').waitFor();
    expect(await lead.page.locator('main').textContent()).toContain('justified by lead');
  });

  test('revoking asks first, for a reason, and the holder sees it', async () => {
    const url = await ask(oncall.page, 'orders-readonly', 'Looking around.');
    await lead.page.goto(url);
    await lead.page.fill('#reason', 'fine');
    await lead.page.getByRole('button', { name: /Approve/ }).click();
    await lead.page.getByText('Approved.').waitFor();
    await lead.page.goto(`${house.url}/active`);
    await lead.page.locator('summary', { hasText: 'Revoke…' }).first().click();
    await lead.page.locator('details[open] input[name=reason]').fill('not needed any more');
    await lead.page.getByRole('button', { name: 'End it now' }).click();
    await lead.page.getByText('Ended. The logins are being removed.').waitFor();
    await oncall.page.getByText('not needed any more').first().waitFor({ timeout: 2_000 });
  });

  test('what somebody wrote is shown as text: no markup runs, hidden characters are seen', async () => {
    const url = await ask(oncall.page, 'orders-readonly', '<img src=x onerror=alert(1)> \u202egnp.exe\u202c <script>document.title="owned"</script>');
    for (const { page } of [oncall, lead, auditor]) {
      await page.goto(url);
      expect(await page.locator('main img').count()).toBe(0);
      expect(await page.title()).not.toBe('owned');
      expect(await page.locator('main').textContent()).toContain('U+202E');
    }
    await lead.page.goto(url);
    await lead.page.fill('#reason', 'no');
    await lead.page.getByRole('button', { name: 'Deny' }).click();
    await lead.page.getByText('Denied.').waitFor();
  });
});

describe('every page', () => {
  const pages = [
    'a waiting request',
    '/',
    '/ask',
    '/decide',
    '/active',
    '/reviews',
    '/audit',
    '/entitlements',
    '/logins',
    '/device',
    '/requests/req_00000000000000000000000000000000',
  ];
  let axe: string;
  let waiting: string;
  beforeAll(async () => {
    axe = await readFile('node_modules/axe-core/axe.min.js', 'utf8');
    waiting = await ask(oncall.page, 'orders-write', `A request with a very long word: ${'x'.repeat(180)} and مرحبا to the end.`);
  });

  for (const path of pages) {
    test(`${path} fits 380 px and a desk, light and dark, is accessible (WCAG 2 AA), and weighs under 50 kB`, async () => {
      for (const { page } of [oncall, lead, auditor]) {
        const answer = await page.goto(path.startsWith('/') ? `${house.url}${path}` : waiting);
        expect((await answer?.body())?.length ?? 0).toBeLessThan(50_000);
        for (const width of [380, 1180]) {
          await page.setViewportSize({ width, height: 800 });
          expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth), `${path} at ${width} px`).toBeLessThanOrEqual(0);
        }
        await page.evaluate(axe);
        const violations = await page.evaluate(async () => {
          const found = await (
            globalThis as unknown as { axe: { run(options: object): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }
          ).axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] });
          return found.violations.map((violation) => `${violation.id}: ${violation.nodes[0]?.html.slice(0, 200)}`);
        });
        expect(violations, path).toEqual([]);
      }
    });
  }

  test('the keyboard reaches the page past the bar, and the first thing to do', async () => {
    await oncall.page.goto(`${house.url}/ask`);
    await oncall.page.keyboard.press('Tab');
    expect(await oncall.page.evaluate(() => document.activeElement?.textContent)).toBe('Skip to the page');
    await oncall.page.keyboard.press('Enter');
    await oncall.page.keyboard.press('Tab');
    expect(await oncall.page.evaluate(() => (document.activeElement as HTMLInputElement | null)?.name)).toBe('entitlement');
  });
});

test('without JavaScript everything but live updates works', async () => {
  const plain = await logInWithBrowser(browser, house.url, 'oncall', { javaScriptEnabled: false });
  const url = await ask(plain.page, 'orders-readonly', 'No scripts here.');
  const approver = await logInWithBrowser(browser, house.url, 'security', { javaScriptEnabled: false });
  await approver.page.goto(url);
  await approver.page.fill('#reason', 'fine');
  await approver.page.getByRole('button', { name: /Approve/ }).click();
  await plain.page.goto(url);
  await plain.page.getByRole('button', { name: 'Claim a login' }).click();
  expect(await plain.page.locator('[data-secret]').textContent()).toMatch(/\S{20,}/);
  await plain.page.getByRole('button', { name: 'Give back' }).click();
  await plain.page.getByText('Given back.').waitFor();
});

test('a terminal is logged in through the browser, and the code reaches its loopback address', async () => {
  const reached = new Promise<URL>((resolve) => {
    const server = createServer((request, response) => {
      response.end('done');
      server.close();
      resolve(new URL(request.url ?? '', 'http://127.0.0.1'));
    });
    server.listen(0, '127.0.0.1', () => {
      const redirect = `http://127.0.0.1:${(server.address() as AddressInfo).port}/callback`;
      const query = new URLSearchParams({
        redirect_uri: redirect,
        state: 'abcdefghijklmnopqrstuvwx',
        code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
        code_challenge_method: 'S256',
        label: 'oncall on laptop',
      });
      void oncall.page.goto(`${house.url}/login/cli?${query}`).then(() => oncall.page.locator('button[value=confirm]').click());
    });
  });
  const answer = await reached;
  expect(answer.searchParams.get('state')).toBe('abcdefghijklmnopqrstuvwx');
  expect(answer.searchParams.get('code')).toMatch(/^\S{20,}$/);
});

test('log out ends the session, and the way back leads through the login', async () => {
  const { page } = await logInWithBrowser(browser, house.url, 'admin');
  await page.getByRole('button', { name: 'log out' }).click();
  await page.waitForURL(/\/login/);
  await page.goto(`${house.url}/active`);
  expect(page.url()).toContain('/login?returnTo=%2Factive');
});

test('no page complained: no script error, nothing blocked by the content security policy', () => {
  const expected = /status of (404|422)/;
  for (const { complaints } of [oncall, lead, auditor]) expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([]);
});
