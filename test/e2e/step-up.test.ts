/** Step-up in a real browser: the decide page tells what is needed, the way leads through the provider, and what was typed is there again. */

import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { logInWithBrowser, type Person, startBrowser } from '../support/browser.ts';
import { type House, until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { groupsAre, loginsAre, startStepUpHouse } from '../support/step-up-house.ts';

let house: House;
let browser: Browser;
let lead: Person;
let oncall: Person;
beforeAll(async () => {
  house = await startStepUpHouse();
  await house.tokenOf('oncall');
  browser = await startBrowser();
  lead = await logInWithBrowser(browser, house.url, 'lead');
  oncall = await logInWithBrowser(browser, house.url, 'oncall');
}, 90_000);
afterAll(async () => {
  await browser?.close();
  await house?.close();
});

const typed = `I looked: "fine" & <b>safe</b>, one' quote`;
/** Not by the address: the page takes the word of what was done out of it at once. */
const decided = (request: string, state: string) =>
  until(state, async () => (await house.database.superuser.query('SELECT FROM request WHERE id = $1 AND state = $2', [request, state])).rowCount === 1);
const prove = async (page: Page, person: string): Promise<void> => {
  await page.waitForURL(/\/login\?/);
  await page.getByRole('button', { name: /^Go to / }).click();
  await page.locator(`button[value=${person}]`).click();
};

test('a decision with an old login: the typed reason survives the way through the provider, and one press decides', async () => {
  const request = await ask(house, { entitlement: 'orders-fresh' });
  await loginsAre(house, 'lead', 700);
  const { page } = lead;
  await page.goto(`${house.url}/requests/${request.id}`);
  expect(await page.locator('[data-proof]').textContent()).toContain('To decide on this: This needs a login that is at most 10 minutes old.');
  await page.fill('#reason', typed);
  await page.getByRole('button', { name: /^Approve for/ }).click();
  await prove(page, 'lead');
  await page.waitForURL(/\/requests\/req_.*draft=/);
  expect(await page.inputValue('#reason')).toBe(typed);
  expect(await page.locator('[data-proof]').count()).toBe(0);
  expect(await page.textContent('.note')).toContain('press Approve once more');
  await page.getByRole('button', { name: /^Approve for/ }).click();
  await decided(request.id, 'approved');
  expect((await house.database.superuser.query('SELECT reason FROM decision WHERE request_id = $1', [request.id])).rows).toEqual([{ reason: typed }]);
});

test('a decision on old groups: no page in between is seen, and the typed reason is there again', async () => {
  const request = await ask(house, { entitlement: 'orders-plain' });
  const { page } = lead;
  await page.goto(`${house.url}/requests/${request.id}`);
  await page.fill('#reason', typed);
  await groupsAre(house, 'lead', 1_000);
  await page.getByRole('button', { name: 'Deny' }).click();
  await page.waitForURL(/\/requests\/req_.*draft=/);
  expect(await page.inputValue('#reason')).toBe(typed);
  expect(await page.textContent('.note')).toContain('press Deny once more');
  await page.getByRole('button', { name: 'Deny' }).click();
  await decided(request.id, 'denied');
});

test('break-glass with an old login: the form comes back with the tick, and one press opens', async () => {
  await loginsAre(house, 'oncall', 400);
  const { page } = oncall;
  await page.goto(`${house.url}/ask?entitlement=orders-plain&glass=1#glass`);
  await page.fill('#why', typed);
  await page.getByLabel('This cannot wait').check();
  await page.getByRole('button', { name: 'Break glass now' }).click();
  await prove(page, 'oncall');
  await page.waitForURL(/\/ask\?draft=/);
  expect(await page.inputValue('#why')).toBe(typed);
  expect(await page.getByLabel('This cannot wait').isChecked()).toBe(true);
  await page.getByRole('button', { name: 'Break glass now' }).click();
  await until('the glass is broken', async () => {
    const { rows } = await house.database.superuser.query('SELECT reason FROM request WHERE break_glass');
    return rows.length === 1 && rows[0].reason === typed;
  });
});

test('nothing on the way broke a rule of the browser', () => {
  // A redirect to the provider answers a fetch of no script; what is left are faults.
  expect([...lead.complaints, ...oncall.complaints]).toEqual([]);
});
