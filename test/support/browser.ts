/** Debian's Chromium, driven by playwright-core, and people who log in with it. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

const executablePath = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

/** Starts the browser. Throws in words when there is none. */
export async function startBrowser(): Promise<Browser> {
  if (!existsSync(executablePath))
    throw new Error(`There is no Chromium at ${executablePath}. On Debian: apt-get install chromium. Elsewhere: set CHROMIUM to its path.`);
  return chromium.launch({
    executablePath,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

export interface Person {
  readonly page: Page;
  /** What the page complained about: errors in its console, broken scripts, violations of the content security policy. */
  readonly complaints: string[];
}

/** Logs a person in through the real pages of Halligan and of the development identity provider. */
export async function logInWithBrowser(browser: Browser, url: string, name: string, options: BrowserContextOptions = {}): Promise<Person> {
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 }, ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(`${page.url()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`${page.url()}: ${error.message}`));
  await page.goto(`${url}/`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.locator(`button[value=${name}]`).click();
  await page.waitForURL(`${url}/`);
  return { page, complaints };
}
