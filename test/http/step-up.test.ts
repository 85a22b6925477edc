/** The console where a login is too old for what was typed: nothing typed is lost, nothing is done on the way, and what comes back is one's own. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { approachCallback, type Browserless, csrfOf, follow, locationOf, loginAs, newBrowserless } from '../../src/demo/browserless.ts';
import { secondFactor } from '../../src/demo/identity-provider.ts';
import type { House } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { groupsAre, loginsAre, refusalsOf, startStepUpHouse } from '../support/step-up-house.ts';

let house: House;
beforeAll(async () => {
  house = await startStepUpHouse();
  await house.tokenOf('oncall');
});
beforeEach(async () => {
  await loginsAre(house, 'oncall', 0);
  await groupsAre(house, 'oncall', 0);
});
afterAll(() => house?.close());

const stateOf = async (request: string) =>
  (await house.database.superuser.query<{ state: string }>('SELECT state FROM request WHERE id = $1', [request])).rows[0]?.state;
const drafts = async () => (await house.database.superuser.query<{ count: number }>('SELECT count(*)::int AS count FROM draft')).rows[0]?.count;
const typed = `because <b>"it" must</b> & 'so'`;
const shown = 'because &lt;b&gt;&quot;it&quot; must&lt;/b&gt; &amp; &#39;so&#39;';

const decide = (browser: Browserless, request: { id: string; seen: string }, more: Record<string, string> = {}) =>
  browser.submit(`/requests/${request.id}/decide`, { decision: 'approve', reason: typed, seen: request.seen, ...more });

/** Through the identity provider as the page asks, and back; gives the page that comes of it. */
async function prove(browser: Browserless & { csrf?: string }, address: URL, person: string, secondFactorToo = false): Promise<Response> {
  const { returnTo = '/', ...wish } = Object.fromEntries(address.searchParams);
  const callback = await approachCallback(browser, person, returnTo, { wish, secondFactor: secondFactorToo });
  const page = await follow(browser, callback);
  Object.assign(browser, { csrf: /name="_csrf" value="([^"]+)"/.exec(await page.clone().text())?.[1] ?? '' });
  return page;
}

const requestFor = (entitlement = 'orders-fresh') => ask(house, { entitlement });

test('deciding with an old login: told before, sent to prove it, back with everything typed, one press decides', async () => {
  const request = await requestFor();
  const lead = await loginAs(house.url, 'lead');
  await loginsAre(house, 'lead', 700);
  expect(await (await lead.fetch(`/requests/${request.id}`)).text()).toContain('To decide on this: This needs a login that is at most 10 minutes old.');
  const address = locationOf(await decide(lead, request));
  expect([address.pathname, address.searchParams.get('max_age')]).toEqual(['/login', '600']);
  expect(address.href).not.toContain('because');
  expect(await refusalsOf(house, 'decision.refused', { request: request.id })).toEqual(['step_up_required']);
  const between = await (await lead.fetch(address)).text();
  expect(between).toContain('at most 10 minutes old');
  expect(between).toContain('Nothing has been done yet');
  const back = await prove(lead, address, 'lead');
  expect(back.status).toBe(200);
  const text = await back.text();
  expect(text).toContain(shown);
  expect(text).toContain('Nothing is decided yet');
  expect(text).not.toContain('data-proof');
  expect(await stateOf(request.id)).toBe('pending');
  const handle = new URL(back.url).searchParams.get('draft') ?? '';
  expect((await decide(lead, request, { draft: handle })).headers.get('location')).toMatch(/\?did=approved$/);
  const { rows } = await house.database.superuser.query('SELECT reason, via FROM decision WHERE request_id = $1', [request.id]);
  expect(rows).toEqual([{ reason: typed, via: 'web' }]);
  expect(await (await lead.fetch(`/requests/${request.id}?draft=${handle}`)).text()).not.toContain('once more');
});

test('attack: a draft is its person’s alone, stands on its own page only, is used once, and ends after fifteen minutes', async () => {
  const [request, other] = [await requestFor(), await requestFor()];
  const lead = await loginAs(house.url, 'lead');
  const second = await loginAs(house.url, 'lead-2');
  await loginsAre(house, 'lead', 700);
  const returnTo = locationOf(await decide(lead, request)).searchParams.get('returnTo') ?? '';
  const handle = new URL(returnTo, house.url).searchParams.get('draft') ?? '';
  const shows = async (browser: Browserless, path: string) => (await (await browser.fetch(path)).text()).includes(shown);
  expect(await shows(lead, returnTo)).toBe(true);
  expect(await shows(second, returnTo)).toBe(false);
  expect(await shows(lead, `/requests/${other.id}?draft=${handle}`)).toBe(false);
  expect(await shows(lead, `/ask?draft=${handle}`)).toBe(false);
  expect(await shows(lead, `/requests/${request.id}?draft=${handle.slice(0, -1)}`)).toBe(false);
  expect(await shows(lead, `/requests/${request.id}?draft=${handle}&draft=${handle}`)).toBe(false);
  // Another person's form does not use it up; its own does, whatever becomes of the form.
  await decide(second, other, { draft: handle, reason: ' ' });
  expect(await shows(lead, returnTo)).toBe(true);
  await decide(lead, request, { draft: handle, reason: ' ' });
  expect(await shows(lead, returnTo)).toBe(false);
  const next = locationOf(await decide(lead, request)).searchParams.get('returnTo') ?? '';
  expect(await shows(lead, next)).toBe(true);
  await house.database.superuser.query(`UPDATE draft SET expires_at = now(), created_at = now() - interval '15 minutes'`);
  expect(await shows(lead, next)).toBe(false);
  expect(await stateOf(request.id)).toBe('pending');
});

test('a handle is kept as its hash only, and a person has ten drafts at most', async () => {
  const request = await requestFor();
  const lead = await loginAs(house.url, 'lead');
  await loginsAre(house, 'lead', 700);
  let handle = '';
  for (let press = 0; press < 13; press++)
    handle =
      locationOf(await decide(lead, request))
        .href.split('draft%3D')[1]
        ?.slice(0, 43) ?? '';
  const { rows } = await house.database.superuser.query<{ form: string }>(`SELECT encode(handle_hash, 'base64') || form::text AS form FROM draft`);
  expect(rows.length).toBeLessThanOrEqual(10);
  expect(JSON.stringify(rows)).not.toContain(handle);
});

test('attack: another person who comes back from the provider is that person, and finds nothing of what was typed', async () => {
  const request = await requestFor();
  const lead = await loginAs(house.url, 'lead');
  await loginsAre(house, 'lead', 700);
  const back = await prove(lead, locationOf(await decide(lead, request)), 'lead-2');
  const text = await back.text();
  expect(back.status).toBe(200);
  expect(text).toContain('Second team lead');
  expect(text).not.toContain(shown);
  expect(text).not.toContain('once more');
  expect(await stateOf(request.id)).toBe('pending');
});

test('what was shown changed on the way: it is said, and the old hash decides nothing', async () => {
  const request = await requestFor();
  const lead = await loginAs(house.url, 'lead');
  await loginsAre(house, 'lead', 700);
  const address = locationOf(await decide(lead, request));
  await house.database.superuser.query(`UPDATE person SET name = 'Renamed engineer' WHERE subject = 'oncall'`);
  try {
    const text = await (await prove(lead, address, 'lead')).text();
    expect(text).toContain('has changed since you pressed Approve');
    expect(text).toContain(shown);
    expect(await (await decide(lead, request)).text()).toContain('no longer what would be granted');
  } finally {
    await house.database.superuser.query(`UPDATE person SET name = 'On-call engineer' WHERE subject = 'oncall'`);
  }
});

test('groups changed at the provider between request and decision: a silent login reads them, and who lost the group decides nothing', async () => {
  const request = await requestFor('orders-plain');
  const lead = await loginAs(house.url, 'lead');
  await groupsAre(house, 'lead', 1_000);
  house.provider.setGroups('lead', ['guests']);
  try {
    const answered = await decide(lead, request);
    expect(answered.status).toBe(200);
    const going = await answered.text();
    expect(going).toContain('http-equiv="refresh"');
    const address = /<a class="btn first" href="([^"]+)"/.exec(going)?.[1]?.replaceAll('&amp;', '&') ?? '';
    expect(new URL(address, house.url).searchParams.get('prompt')).toBe('none');
    const back = await follow(lead, address);
    expect(back.status).toBe(404);
    Object.assign(lead, { csrf: await csrfOf(lead, '/logins') });
    expect((await decide(lead, request)).status).toBe(404);
    expect(await refusalsOf(house, 'decision.refused', { request: request.id })).toEqual(['groups_stale', 'not_found']);
    expect(await stateOf(request.id)).toBe('pending');
  } finally {
    house.provider.setGroups('lead', ['leads']);
  }
});

test('the page of a request reads old groups again by itself, once, without asking, and shows itself', async () => {
  const request = await requestFor('orders-plain');
  const lead = await loginAs(house.url, 'lead');
  await groupsAre(house, 'lead', 1_000);
  const before = drafts();
  const page = await follow(lead, `/requests/${request.id}`);
  expect(page.status).toBe(200);
  expect(page.url).toBe(`${house.url}/requests/${request.id}`);
  expect(await page.text()).not.toContain('data-proof');
  expect(await drafts()).toBe(await before);
  Object.assign(lead, { csrf: await csrfOf(lead, '/logins') });
  expect((await decide(lead, request)).headers.get('location')).toMatch(/\?did=approved$/);
});

test('where the provider would have to ask, the page shows as things are, once; the decision then goes by the page that asks', async () => {
  const request = await requestFor('orders-plain');
  const lead = await loginAs(house.url, 'lead');
  await groupsAre(house, 'lead', 1_000);
  // The provider has forgotten this browser.
  const bare = newBrowserless(house.url);
  const cookie = Object.entries(lead.cookies())
    .map(([name, value]) => `${name}=${value}`)
    .join('; ');
  const asked = locationOf(await bare.fetch(`/requests/${request.id}`, { headers: { cookie } }));
  expect(asked.searchParams.get('prompt')).toBe('none');
  const refused = locationOf(await bare.fetch(asked));
  expect(refused.searchParams.get('error')).toBe('login_required');
  const attempts = Object.entries(bare.cookies()).map(([name, value]) => `${name}=${value}`);
  const went = locationOf(await bare.fetch(refused, { headers: { cookie: [cookie.replace(/;? ?halligan-login=[^;]*/, ''), ...attempts].join('; ') } }));
  expect(went.href).toBe(`${house.url}/requests/${request.id}?login=tried`);
  const page = await lead.fetch(went);
  expect(page.status).toBe(200);
  expect(await page.text()).toContain('Your groups were last read');
});

test('a script that fetches the page, and a HEAD, are never sent to the provider', async () => {
  const request = await requestFor('orders-plain');
  const lead = await loginAs(house.url, 'lead');
  await groupsAre(house, 'lead', 1_000);
  expect((await lead.fetch(`/requests/${request.id}`, { headers: { 'sec-fetch-dest': 'empty' } })).status).toBe(200);
  expect((await lead.fetch(`/requests/${request.id}`, { method: 'HEAD' })).status).toBe(200);
  expect((await lead.fetch(`/requests/${request.id}`)).status).toBe(303);
});

test('asking with step-up and breaking the glass: everything typed comes back, and one press asks', async () => {
  const oncall = await loginAs(house.url, 'oncall');
  await loginsAre(house, 'oncall', 700);
  const form = { entitlement: 'orders-fresh', chip: '30m', duration: '25m', reason: typed, incident: 'INC-7', how: 'ask' };
  expect(await (await oncall.fetch('/ask')).text()).toContain('To ask (orders-fresh, slack-allow-fresh): This needs a login that is at most 10 minutes old.');
  const back = await prove(oncall, locationOf(await oncall.submit('/ask', form)), 'oncall');
  const text = await back.text();
  expect(text).toContain(shown);
  for (const part of ['value="orders-fresh" checked', 'value="25m"', 'value="INC-7"', 'press Ask once more']) expect(text).toContain(part);
  expect((await oncall.submit('/ask', form)).headers.get('location')).toMatch(/\?did=asked$/);

  await loginsAre(house, 'oncall', 400);
  const glass = { ...form, entitlement: 'orders-plain', chip: '1h', duration: '', how: 'glass', sure: 'yes' };
  expect(await (await oncall.fetch('/ask')).text()).toContain(
    'To break the glass (orders-plain, orders-fresh, slack-allow, slack-step-up, slack-allow-fresh): This needs a login that is at most 5 minutes old.',
  );
  const address = locationOf(await oncall.submit('/ask', glass));
  expect(address.searchParams.get('max_age')).toBe('300');
  const again = await (await prove(oncall, address, 'oncall')).text();
  for (const part of ['class="note glass" open', 'value="yes" checked', 'press Break glass now once more']) expect(again).toContain(part);
  expect((await oncall.submit('/ask', glass)).headers.get('location')).toMatch(/\?did=glass$/);
});

test('a class that the provider must name: only the second factor does', async () => {
  const oncall = await loginAs(house.url, 'oncall');
  const form = { entitlement: 'orders-strong', chip: '15m', reason: 'why', how: 'ask' };
  const address = locationOf(await oncall.submit('/ask', form));
  expect(address.searchParams.get('acr_values')).toBe(secondFactor);
  const weak = await prove(oncall, address, 'oncall');
  expect(weak.status).toBe(401);
  expect(await refusalsOf(house, 'login.refused', { person: 'nobody' })).toEqual([]);
  Object.assign(oncall, { csrf: await csrfOf(oncall, '/logins') });
  expect((await prove(oncall, address, 'oncall', true)).status).toBe(200);
  expect((await oncall.submit('/ask', form)).headers.get('location')).toMatch(/\?did=asked$/);
});

test('the identity provider is down: sessions go on, pages show, and a decision on old groups is refused in words, with the reason kept', async () => {
  const down = await startStepUpHouse();
  try {
    const request = await ask(down, { entitlement: 'orders-plain' });
    const lead = await loginAs(down.url, 'lead');
    await down.provider.close();
    await groupsAre(down, 'lead', 1_000);
    const page = await lead.fetch(`/requests/${request.id}`);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('Your groups were last read');
    const answered = await decide(lead, request);
    expect(answered.status).toBe(422);
    const text = await answered.text();
    expect(text).toContain('Your groups were last read at the identity provider more than 15 minutes ago.');
    expect(text).toContain(shown);
    expect(await refusalsOf(down, 'decision.refused', { request: request.id })).toEqual(['groups_stale']);
    await groupsAre(down, 'lead', 0);
    expect((await decide(lead, request)).headers.get('location')).toMatch(/\?did=approved$/);
  } finally {
    await down.close();
  }
});

test('the terminal’s page sends an old login to prove it first, and lets the terminal in with the new proof', async () => {
  const lead = await loginAs(house.url, 'lead');
  await loginsAre(house, 'lead', 700);
  const ask = {
    redirect_uri: 'http://127.0.0.1:1/cb',
    state: 'a-long-enough-state',
    code_challenge: 'w6uP8Tcg6K2QR905Rms8iXTlksL6OD1KOWBxTK7wxPI',
    code_challenge_method: 'S256',
  };
  const page = `/login/cli?${new URLSearchParams({ ...ask, max_age: '600', groups_max_age: '900' })}`;
  const address = locationOf(await lead.fetch(page));
  expect([address.pathname, address.searchParams.get('max_age'), address.searchParams.get('returnTo')]).toEqual(['/login', '600', page]);
  const back = await prove(lead, address, 'lead');
  expect(back.status).toBe(200);
  expect(await back.text()).toContain('Log in the terminal');
  await groupsAre(house, 'lead', 1_000);
  expect(await (await follow(lead, page)).text()).toContain('Log in the terminal');
  await groupsAre(house, 'lead', 1_000);
  const device = await follow(lead, '/device?groups_max_age=0');
  expect(await device.text()).toContain('Which code');
  expect((await lead.fetch('/device?max_age=x')).status).toBe(400);
});
