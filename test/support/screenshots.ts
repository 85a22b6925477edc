/** `npm run screenshots`: makes the README's pictures from a running Halligan, into docs/screenshots. Needs Chromium. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startHouse } from '../../src/demo/house.ts';
import { logInWithBrowser, startBrowser } from './browser.ts';

const out = 'docs/screenshots';
await mkdir(out, { recursive: true });
const folder = await mkdtemp(join(tmpdir(), 'halligan-shots-'));
const house = await startHouse({ dataDirectory: folder, log: console.error, port: 0, providerPort: 0 });
const browser = await startBrowser();

async function shoot(page: Page, name: string, width = 1180, height = 760): Promise<void> {
  await page.setViewportSize({ width, height });
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(out, `${name}.png`) });
  console.log(`${out}/${name}.png`);
}

async function ask(page: Page, entitlement: string, why: string, then: string): Promise<string> {
  await page.goto(`${house.url}/ask?entitlement=${entitlement}`);
  await page.fill('#why', why);
  await page.fill('#incident', 'INC-4312');
  if (then === 'glass') {
    await page.locator('#glass summary').click();
    await page.locator('input[name=sure]').check();
    await page.getByRole('button', { name: 'Break glass now' }).click();
  } else await page.getByRole('button', { name: 'Ask', exact: true }).click();
  await page.waitForURL(/\/requests\//);
  return page.url().split('?')[0] ?? '';
}

try {
  const oncall = (await logInWithBrowser(browser, house.url, 'oncall')).page;
  const lead = (await logInWithBrowser(browser, house.url, 'lead')).page;
  const url = await ask(oncall, 'orders-readonly', 'Checkout errors since 02:50, I need to see whether order rows are written twice.', 'ask');
  await lead.goto(url);
  await shoot(lead, 'decide');
  await shoot(lead, 'decide-phone', 390, 900);
  await lead.fill('#reason', 'go ahead, read only');
  await lead.getByRole('button', { name: /Approve/ }).click();
  await lead.getByText('Approved.').waitFor();
  await oncall.getByRole('button', { name: 'Claim a login' }).click();
  await oncall.locator('#secret').waitFor();
  await shoot(oncall, 'claimed');
  await ask(oncall, 'orders-write', 'Stuck refunds, approvers not reached.', 'glass');
  await oncall.goto(`${house.url}/`);
  await shoot(oncall, 'now');
  await oncall.emulateMedia({ colorScheme: 'dark' });
  await shoot(oncall, 'now-phone-dark', 390, 900);
  await lead.goto(`${house.url}/active`);
  await shoot(lead, 'active', 1180, 420);
  await oncall.emulateMedia({ colorScheme: 'light' });
  await oncall.goto(`${house.url}/ask`);
  await shoot(oncall, 'ask');
} finally {
  await browser.close();
  await house.stop();
  await rm(folder, { recursive: true, force: true });
  await rm(house.postgres.dataDirectory, { recursive: true, force: true });
}
