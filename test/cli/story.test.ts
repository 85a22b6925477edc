/** The whole story in the terminal: the real server, the real command line, a real target. */

import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type Browserless, locationOf, loginAs } from '../support/browserless-login.ts';
import { startTestServer, type TestHalligan } from '../support/test-server.ts';
import { cliCommand, newSeat, type RunningCommand, type Seat } from './run-cli.ts';

let halligan: TestHalligan;
const seats: Seat[] = [];
let oncall: Seat;
let lead: Seat;
let security: Seat;
let auditor: Seat;

/** A terminal of this person, logged in with a token from the environment as CI jobs are. */
async function seatOf(person: string, env: NodeJS.ProcessEnv = {}): Promise<Seat> {
  const seat = await newSeat({ HALLIGAN_SERVER: halligan.url, HALLIGAN_TOKEN: await halligan.tokenOf(person), ...env });
  seats.push(seat);
  return seat;
}

async function emptySeat(env: NodeJS.ProcessEnv = {}): Promise<Seat> {
  const seat = await newSeat(env);
  seats.push(seat);
  return seat;
}

beforeAll(async () => {
  halligan = await startTestServer();
  [oncall, lead, security, auditor] = (await Promise.all(['oncall', 'lead', 'security', 'auditor'].map((person) => seatOf(person)))) as [
    Seat,
    Seat,
    Seat,
    Seat,
  ];
});
afterAll(async () => {
  for (const seat of seats) await seat.close();
  await halligan?.close();
});

/** Does in the browser what the terminal's login asks for; gives what the terminal's page says. */
async function confirmInBrowser(login: RunningCommand, person: string, decision: 'confirm' | 'deny' = 'confirm'): Promise<string> {
  const [, address = ''] = await login.said(/(http:\/\/127\.0\.0\.1:\d+\/login\/cli\?\S+)\n/);
  const browser: Browserless = await loginAs(halligan.url, person);
  expect((await browser.fetch(address)).status).toBe(200);
  const callback = locationOf(await browser.submit('/login/cli', { ...Object.fromEntries(new URL(address).searchParams), decision }));
  const stranger = new URL(callback);
  stranger.searchParams.set('state', 'a state of somebody else');
  expect((await fetch(stranger)).status).toBe(400);
  return (await fetch(callback)).text();
}

/** A request by `oncall`, approved by `lead`; gives both ids. */
async function openGrant(duration: string, ...more: string[]): Promise<{ request: string; grant: string }> {
  const asked = await oncall.run('request', 'orders-readonly', '--for', duration, '--reason', 'to look', '--no-wait', ...more);
  expect(asked.code, asked.err).toBe(8);
  const request = asked.out.trim();
  const approved = await lead.run('approve', request, '--reason', 'go ahead', '--yes');
  expect(approved.code, approved.err).toBe(0);
  return { request, grant: approved.out.trim() };
}

describe('logging in', () => {
  test('by the browser: loopback redirect, a file for its owner only, whoami, logout', async () => {
    const seat = await emptySeat();
    const login = seat.start(['login', '--server', halligan.url, '--no-browser']);
    expect(await confirmInBrowser(login, 'oncall')).toContain('You can close this window');
    const ran = await login.done;
    expect(ran.code, ran.err).toBe(0);
    expect(ran.out).toBe('');
    expect(ran.err).toContain('as oncall');
    const file = join(seat.home, 'halligan', 'login.json');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect((await stat(join(seat.home, 'halligan'))).mode & 0o777).toBe(0o700);

    const me = await seat.run('whoami', '-o', 'json');
    expect(JSON.parse(me.out)).toMatchObject({ subject: 'oncall', groups: ['oncall'], via: 'cli', server: halligan.url });
    expect((await seat.run('whoami', '-o', 'yaml')).out).toContain('subject: oncall');

    const elsewhere = await seat.start(['whoami'], { env: { HALLIGAN_SERVER: 'http://127.0.0.1:9' } }).done;
    expect(elsewhere.code).toBe(4);

    await chmod(file, 0o644);
    const readable = await seat.run('whoami');
    expect(readable.code).toBe(1);
    expect(readable.err).toContain(`next: chmod 600 ${file}`);
    await chmod(file, 0o600);

    expect((await seat.run('logout')).code).toBe(0);
    expect(await readFile(file, 'utf8')).not.toContain('hgt_');
    const out = await seat.run('whoami');
    expect(out.code).toBe(4);
    expect(out.err).toContain(`next: halligan login --server ${halligan.url}`);
  });

  test('a no in the browser leaves the terminal logged out: exit 4', async () => {
    const seat = await emptySeat();
    const login = seat.start(['login', '--server', halligan.url, '--no-browser']);
    expect(await confirmInBrowser(login, 'oncall', 'deny')).toContain('was not logged in');
    expect((await login.done).code).toBe(4);
  });

  test('by code: it may ask and claim, but not decide: exit 6', async () => {
    const seat = await emptySeat();
    const login = seat.start(['login', '--server', halligan.url], { env: { SSH_CONNECTION: '192.0.2.1 1 192.0.2.2 22' } });
    const [, code = ''] = await login.said(/\n +([A-Z]{4}-[A-Z]{4})\n/);
    const browser = await loginAs(halligan.url, 'lead');
    expect((await browser.submit('/device/decide', { user_code: code, decision: 'confirm' })).status).toBe(200);
    const ran = await login.done;
    expect(ran.code, ran.err).toBe(0);

    const asked = await oncall.run('request', 'orders-readonly', '--for', '5m', '--reason', 'to look', '--no-wait');
    const refused = await seat.run('approve', asked.out.trim(), '--reason', 'ok', '--yes');
    expect(refused.code).toBe(6);
    expect(refused.err).toContain('halligan login');
    expect((await oncall.run('withdraw', asked.out.trim())).code).toBe(0);
  });

  test('a token is sent in the clear to nobody, and never without its server', async () => {
    const clear = await (await emptySeat()).run('login', '--server', 'http://halligan.example.com');
    expect(clear.code).toBe(2);
    const homeless = await (await emptySeat({ HALLIGAN_TOKEN: 'hgt_x' })).run('whoami');
    expect(homeless.code).toBe(2);
  });
});

describe('asking and deciding', () => {
  test('a request waits, is approved, and says what to do next within 2 s', async () => {
    const asking = oncall.start(['request', 'orders-readonly', '--for', '10m', '--reason', 'checkout errors', '--incident', 'INC-1']);
    const [, short = ''] = await asking.said(/(req_[0-9a-f]{12}) asked\./);
    await asking.said(/Ctrl-C leaves it pending · in an emergency: halligan request orders-readonly --break-glass/);

    const mine = await oncall.run('approve', short);
    expect(mine.code).toBe(6);
    expect(mine.err).toContain('You asked for this one yourself. Nobody decides on their own request.');
    expect(mine.err).toContain(`can: halligan status ${short}`);

    const waiting = await oncall.run('status');
    expect(waiting.out).toMatch(/^WAITING +WHAT +FOR +LAPSES +WHO CAN DECIDE$/m);
    expect((await lead.run('status')).out).toMatch(/^TO DECIDE +WHO +WHAT +FOR +WHY$/m);

    const approved = await lead.run('approve', short, '--reason', 'go ahead, read only', '--yes');
    const at = performance.now();
    expect(approved.code, approved.err).toBe(0);
    expect(approved.err).toContain('oncall asks to read the orders database for 10 minutes');
    expect(approved.err).toMatch(/SELECT/);
    const ran = await asking.done;
    expect(performance.now() - at).toBeLessThan(2_500);
    expect(ran.code, ran.err).toBe(0);
    expect(ran.out).toBe(approved.out);
    expect(ran.err).toContain('lead approved: “go ahead, read only”.');
    expect(ran.err).toContain('next: halligan psql orders-readonly');

    const open = await oncall.run('status');
    expect(open.out).toMatch(/^WHAT +STATE +LEFT +UNTIL +WHY$/m);
    expect(open.out).toMatch(/^orders-readonly +active +(10:00|09:\d\d) +\d\d:\d\d:\d\d +INC-1 checkout errors$/m);
    expect((await oncall.run('status', short)).out).toContain('lead approved · “go ahead, read only”');

    const revoked = await security.run('revoke', '--incident', 'INC-1', '--reason', 'over');
    expect(revoked.code, revoked.err).toBe(0);
    expect(revoked.out).toBe(ran.out);
    const closed = await oncall.run('psql', 'orders-readonly');
    expect(closed.code).toBe(5);
    expect(closed.err).toMatch(
      /orders-readonly closed at \d\d:\d\d:\d\d UTC \(the incident was closed: “over”, \d+ s ago\)\.\nAsk again: halligan request orders-readonly --for 10m --incident INC-1/,
    );
  });

  test('a denial is exit 5, a withdrawal and a timeout are exit 3', async () => {
    const asking = oncall.start(['request', 'orders-readonly', '--for', '5m', '--reason', 'to look']);
    const [, short = ''] = await asking.said(/(req_[0-9a-f]{12}) asked\./);
    expect((await security.run('deny', short, '--reason', 'not now')).code).toBe(0);
    const denied = await asking.done;
    expect(denied.code, denied.err).toBe(5);
    expect(denied.err).toContain('security denied: “not now”.');
    expect(denied.out).toBe('');

    const again = oncall.start(['request', 'orders-readonly', '--for', '5m', '--reason', 'to look']);
    const [, second = ''] = await again.said(/(req_[0-9a-f]{12}) asked\./);
    expect((await oncall.run('withdraw', second)).code).toBe(0);
    expect((await again.done).code).toBe(3);

    const late = await oncall.run('request', 'orders-readonly', '--for', '5m', '--reason', 'to look', '--timeout', '1s');
    expect(late.code).toBe(3);
    const [, third = ''] = /halligan withdraw (req_[0-9a-f]{12})/.exec(late.err) ?? [];
    expect((await oncall.run('withdraw', third)).code).toBe(0);
  });

  test('Ctrl-C leaves the request pending: exit 130', async () => {
    const asking = oncall.start(['request', 'orders-readonly', '--for', '5m', '--reason', 'to look']);
    const [, short = ''] = await asking.said(/(req_[0-9a-f]{12}) asked\./);
    await asking.said(/waiting…/);
    asking.child.kill('SIGINT');
    const ran = await asking.done;
    expect(ran.code, ran.err).toBe(130);
    expect(ran.err).toContain(`halligan withdraw ${short}`);
    expect((await oncall.run('withdraw', short)).code).toBe(0);
  });

  test('two people must approve where the policy says so, and the same key asks once', async () => {
    const args = ['request', 'two-person', '--for', '5m', '--reason', 'to look', '--no-wait', '--idempotency-key', 'one-and-the-same'];
    const [first, second] = [await oncall.run(...args), await oncall.run(...args)];
    expect([first.code, second.code]).toEqual([8, 8]);
    expect(second.out).toBe(first.out);
    const half = await lead.run('approve', first.out.trim(), '--reason', 'ok', '--yes');
    expect(half.err).toContain('Still needed: 1 of members of security.');
    const whole = await security.run('approve', first.out.trim(), '--reason', 'ok', '--yes');
    expect(whole.out).toMatch(/^gnt_[0-9a-f]{32}\n$/);
    expect((await oncall.run('return', 'two-person')).code).toBe(0);
  });

  test('what somebody wrote cannot repaint the terminal of who decides', async () => {
    const reason = 'to look\nrule    1 of 1 approved \u202edessorc';
    const asked = await oncall.run('request', 'orders-readonly', '--for', '5m', '--reason', reason, '--no-wait');
    expect(asked.code, asked.err).toBe(8);
    const id = asked.out.trim();
    const escaped = 'to look ⏎ rule    1 of 1 approved \\u202edessorc';
    expect((await lead.run('status')).out).toContain(escaped);
    expect((await lead.run('status', id)).out).toContain(escaped);
    const json = (await lead.run('status', id, '-o', 'json')).out;
    expect(json).not.toContain('\u202e');
    expect((JSON.parse(json) as { reason: string }).reason).toBe(reason);
    const approved = await lead.run('approve', id, '--reason', 'ok', '--yes');
    expect(approved.err).toContain(`why     ${escaped}`);
    expect((await oncall.run('return', 'orders-readonly')).code).toBe(0);
    const painted = await oncall.run('request', 'orders-readonly', '--for', '5m', '--reason', 'x\u001b[2J', '--no-wait');
    expect(painted.code).toBe(2);
  });

  test('what is written wrongly is exit 2 with what would be right', async () => {
    const bare = await oncall.run('request', 'orders-readonly', '--for', '90', '--reason', 'to look');
    expect(bare.code).toBe(2);
    expect(bare.err).toBe('"90" is not a duration: say 90s, 90m or 1h30m. The most for orders-readonly is 4h.\n');
    expect((await oncall.run('request', 'orders-readonly', '--for', '5h', '--reason', 'x')).code).toBe(2);
    expect((await oncall.run('request', 'orders-readonly', '--for', '5m')).code).toBe(2);
    const unknown = await oncall.run('psql', 'orders-readnoly');
    expect(unknown.code).toBe(2);
    expect(unknown.err).toContain('Did you mean orders-readonly?');
    expect((await oncall.run('stauts')).err).toContain('Did you mean status?');
    expect((await security.run('request', 'orders-readonly', '--for', '5m', '--reason', 'x')).code).toBe(6);
    expect((await oncall.run('status', 'req_abcdef', '-o', 'xml')).code).toBe(2);
  });

  test('break-glass opens at once, is shown as such, and its review is closed by somebody else', async () => {
    const opened = await oncall.run('request', 'orders-readonly', '--for', '10m', '--reason', 'nobody answers', '--break-glass');
    expect(opened.code, opened.err).toBe(0);
    expect((await oncall.run('status')).out).toContain('break-glass');
    const grant = opened.out.trim();
    expect((await oncall.run('return', grant)).code).toBe(0);
    const due = JSON.parse((await lead.run('reviews', '-o', 'json')).out) as { id: string; grantId: string }[];
    const review = due.find((one) => one.grantId === grant);
    const own = await oncall.run('reviews', 'close', review?.id ?? '', '--verdict', 'justified', '--notes', 'mine');
    expect(own.code).toBe(6);
    const closed = await lead.run('reviews', 'close', review?.id.slice(0, 16) ?? '', '--verdict', 'justified', '--notes', 'looked at it');
    expect(closed.code, closed.err).toBe(0);
    expect((await lead.run('reviews')).err).toContain('No review is due');
  });
});

describe('using', () => {
  test('creds, psql and exec hand a working login on; return ends it and reads it back', async () => {
    const { grant } = await openGrant('5m');
    const uri = (await oncall.run('creds', 'orders-readonly', '-o', 'uri')).out.trim();
    const client = new pg.Client({ connectionString: uri, connectionTimeoutMillis: 5_000 });
    client.on('error', () => undefined);
    await client.connect();
    expect((await client.query('SELECT count(*)::int AS n FROM orders')).rows).toEqual([{ n: 40 }]);

    const script = 'const {env}=process; console.log(JSON.stringify(Object.fromEntries(Object.entries(env).filter(([n])=>/^(PG|HALLIGAN)/.test(n)))))';
    const ran = await oncall.run('exec', 'orders-readonly', '--', process.execPath, '-e', script, '--', '--an-option');
    expect(ran.code, ran.err).toBe(0);
    expect(ran.err).toContain('This replaces the login claimed at');
    const env = JSON.parse(ran.out) as Record<string, string>;
    expect(Object.keys(env)).toEqual(
      expect.arrayContaining(['PGHOST', 'PGPORT', 'PGDATABASE', 'PGUSER', 'PGPASSWORD', 'PGSSLMODE', 'HALLIGAN_GRANT', 'HALLIGAN_UNTIL']),
    );
    expect(env['HALLIGAN_TOKEN']).toBeUndefined();
    expect(env['HALLIGAN_GRANT']).toBe(grant);
    expect((await oncall.run('exec', 'orders-readonly', '--', 'sh', '-c', 'exit 42')).code).toBe(42);

    const file = join(oncall.home, 'pgpass');
    const written = await oncall.run('creds', 'orders-readonly', '-o', 'pgpass', '--out', file);
    expect(written.code, written.err).toBe(0);
    expect(written.out).toBe('');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, 'utf8')).toMatch(/^127\.0\.0\.1:\d+:orders_\w+:hg_lse_[0-9a-f]{32}:\S+\n$/);
    expect((await oncall.run('creds', 'orders-readonly', '--out', file)).code).toBe(2);

    const back = await oncall.run('return');
    expect(back.code, back.err).toBe(0);
    expect(back.out.trim()).toBe(grant);
    expect(back.err).toContain('gone, read back from the target');
    await client.end().catch(() => undefined);
    const closed = await oncall.run('creds', 'orders-readonly');
    expect(closed.code).toBe(5);
    expect(closed.err).toContain('given back');
  });

  test('psql gets the login in its environment and not in its arguments; its exit code comes back', async () => {
    await openGrant('5m');
    const folder = await mkdtemp(join(inject('server').folder, 'psqlDouble-'));
    const psqlDouble = join(folder, 'psql');
    await writeFile(psqlDouble, `#!/bin/sh\nenv | grep '^PG' | cut -d= -f1 | sort\necho "args: $*"\nexit 3\n`, { mode: 0o755 });
    const ran = await oncall.start(['psql', 'orders-readonly', '--', '-c', 'select 1'], {
      env: { PATH: `${folder}:${process.env['PATH']}`, PGSERVICE: 'elsewhere' },
    }).done;
    expect(ran.code).toBe(3);
    expect(ran.out).toBe('PGAPPNAME\nPGDATABASE\nPGHOST\nPGPASSWORD\nPGPORT\nPGSSLMODE\nPGUSER\nargs: -c select 1\n');
    expect(ran.err).toMatch(/^login hg_lse_[0-9a-f]{32} in orders_\w+, until \d\d:\d\d:\d\d UTC \(\d+ (min|s) left\)$/m);

    const plain = await oncall.start(['psql', 'orders-readonly', '-c', 'select 1'], { env: { PATH: `${folder}:${process.env['PATH']}` } }).done;
    expect(plain.out).toContain('args: -c select 1\n');

    const none = await oncall.start(['psql', 'orders-readonly'], { env: { PATH: folder.replace('psqlDouble', 'nowhere') } }).done;
    expect(none.code).toBe(1);
    expect(none.err).toContain('psql is not on this machine');
    expect(none.err).toContain('halligan exec orders-readonly');
    expect((await oncall.run('return', 'orders-readonly')).code).toBe(0);
  });

  test('a signal goes on to the command, and its end comes back', async () => {
    await openGrant('5m');
    const ran = oncall.start(['exec', 'orders-readonly', '--', 'sh', '-c', 'trap "echo told >&2; exit 9" TERM; echo ready >&2; while :; do sleep 0.1; done']);
    await ran.said(/ready/);
    ran.child.kill('SIGTERM');
    expect(await ran.done).toMatchObject({ code: 9, err: expect.stringContaining('told') });
    const ended = oncall.start(['exec', 'orders-readonly', '--', 'sh', '-c', 'echo ready >&2; exec sleep 30']);
    await ended.said(/ready/);
    ended.child.kill('SIGTERM');
    expect((await ended.done).code).toBe(143);
    expect((await oncall.run('exec', 'orders-readonly', '--', 'no-such-command')).code).toBe(127);
    expect((await oncall.run('return', 'orders-readonly')).code).toBe(0);
  });

  test.skipIf(!existsSync('/usr/bin/psql'))('the real psql of this machine reads the target', async () => {
    await openGrant('5m');
    const ran = await oncall.run('psql', 'orders-readonly', '--', '-XAtc', 'select count(*) from orders');
    expect(ran.out, ran.err).toBe('40\n');
    expect(ran.code).toBe(0);
    expect((await oncall.run('return', 'orders-readonly')).code).toBe(0);
  });

  test('when time is up the name says when it closed and how to ask again: exit 5', async () => {
    await openGrant('2s', '--incident', 'INC-2');
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    const closed = await oncall.run('psql', 'orders-readonly');
    expect(closed.code).toBe(5);
    expect(closed.err).toMatch(
      /^orders-readonly closed at \d\d:\d\d:\d\d UTC \(expired, \d+ s ago\)\.\nAsk again: halligan request orders-readonly --for 2s --incident INC-2\n$/,
    );
  });

  test.skipIf(!existsSync('/usr/bin/script'))('a password is not printed on a terminal: exit 2', async () => {
    const quoted = [...cliCommand, 'creds', 'orders-readonly'].map((word) => `'${word}'`).join(' ');
    const ran = await oncall.start([], { command: ['/usr/bin/script', '-qec', quoted, '/dev/null'] }).done;
    expect(ran.code).toBe(2);
    expect(ran.out).toContain('Refusing to print a password on a terminal. Use  halligan psql orders-readonly,  -o pgpass --out FILE,  or --reveal.');
  });
});

describe('the log', () => {
  test('is exported with its checkpoints and verified; a changed byte is named', async () => {
    const [log, checkpoints] = [join(auditor.home, 'audit.jsonl'), join(auditor.home, 'checkpoints.jsonl')];
    const exported = await auditor.run('audit', 'export', '--out', log, '--checkpoints', checkpoints);
    expect(exported.code, exported.err).toBe(0);
    const key = join(halligan.folder, 'audit.key.pub');
    const good = await auditor.run('audit', 'verify', log, '--key', key, '--checkpoints', checkpoints);
    expect(good.code, good.out + good.err).toBe(0);
    expect(good.out).toMatch(
      /^[\d ]+ entries, \S+Z to \S+Z\nchain {8}ok {6}every entry is under the root\ncheckpoints {2}ok {6}\d+ signed, each contains the one before\nhead {9}ok {6}entry \d+/,
    );

    const text = await readFile(log, 'utf8');
    await writeFile(log, text.replace('to look', 'to lurk'));
    const bad = await auditor.run('audit', 'verify', log, '--key', halligan.verifierKey);
    expect(bad.code).toBe(1);
    expect(bad.out).toMatch(/^entry \d+ \(request\.submitted, \S+Z\) is not what was sealed: its hash is [0-9a-f]{4}…, checkpoint \d+ has [0-9a-f]{4}…\.\n/);
    expect(bad.out).toMatch(/\nentries 0 to \d+ are intact\.\n$/);
    expect(JSON.parse((await auditor.run('audit', 'verify', log, '--key', halligan.verifierKey, '-o', 'json')).out)).toMatchObject({
      ok: false,
      problem: 'entry',
    });

    expect((await oncall.run('audit', 'export')).code).toBe(6);
    expect((await auditor.run('audit', 'export', '--format', 'csv')).out.split('\n').length).toBeGreaterThan(10);
  });

  test("a grant's evidence verifies without the log", async () => {
    const { grant } = await openGrant('5m');
    expect((await oncall.run('return', grant)).code).toBe(0);
    const file = join(auditor.home, 'evidence.json');
    const fetched = await auditor.run('audit', 'evidence', grant, '--out', file);
    expect(fetched.code, fetched.err).toBe(0);
    const good = await auditor.run('audit', 'verify-evidence', file, '--key', halligan.verifierKey);
    expect(good.code, good.out + good.err).toBe(0);
    expect(good.out).toContain(`about ${grant}`);
  });

  test('tail shows what comes', async () => {
    const tail = auditor.start(['audit', 'tail', '-f', '-n', '1', '-o', 'json', '--type', 'request.withdrawn']);
    const asked = await oncall.run('request', 'orders-readonly', '--for', '5m', '--reason', 'for the tail', '--no-wait');
    expect((await oncall.run('withdraw', asked.out.trim())).code).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    tail.child.kill('SIGINT');
    const ran = await tail.done;
    expect(ran.code).toBe(130);
    const requests = ran.out
      .trim()
      .split('\n')
      .map((text) => (JSON.parse(text) as { request: string }).request);
    expect(requests).toContain(asked.out.trim());
    expect(new Set(requests).size).toBe(requests.length);
  });
});
