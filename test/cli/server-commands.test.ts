/** The commands that run beside the database, as child processes. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { testDatabase } from '../support/postgres.ts';
import { startTestServer, type TestHalligan } from '../support/test-server.ts';
import { newSeat, type Seat } from './run-cli.ts';

let halligan: TestHalligan;
let seat: Seat;

beforeAll(async () => {
  halligan = await startTestServer({ worker: false });
  seat = await newSeat();
});
afterAll(async () => {
  await seat?.close();
  await halligan?.close();
});

/** The server's config with some of its text replaced, in a file beside it. */
async function configWith(name: string, ...replacements: readonly (readonly [string, string])[]): Promise<string> {
  let text = await readFile(halligan.configFile, 'utf8');
  for (const [from, to] of replacements) {
    expect(text).toContain(from);
    text = text.replaceAll(from, to);
  }
  const file = join(halligan.folder, name);
  await writeFile(file, text);
  return file;
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });

describe('config', () => {
  test('check says ok with what it found', async () => {
    const ran = await seat.run('config', 'check', '--config', halligan.configFile);
    expect(ran).toEqual({ code: 0, out: 'ok: 1 target, 2 entitlements\n', err: '' });
  });

  test('check lists every fault with its file and line: exit 1', async () => {
    const file = await configWith(
      'faults.yaml',
      ['maxDuration: 4h', 'maxDuration: 90'],
      ['owner:', 'ownr:'],
      ['log: { level: error }', 'log: { level: loud }'],
    );
    const ran = await seat.run('config', 'check', '--config', file);
    expect(ran.code).toBe(1);
    expect(ran.out).toBe('');
    const faults = ran.err.trim().split('\n');
    expect(faults.length).toBeGreaterThanOrEqual(4);
    for (const fault of faults) expect(fault).toMatch(new RegExp(`^${file.replaceAll('.', '\\.')}:\\d+: `));
    expect(ran.err).toContain('did you mean "owner"?');
    expect((await seat.run('serve', '--config', file)).code).toBe(1);
  });

  test('schema is JSON Schema', async () => {
    const ran = await seat.run('config', 'schema');
    expect(ran.code).toBe(0);
    expect(Object.keys((JSON.parse(ran.out) as { properties: object }).properties)).toContain('entitlements');
  });

  test('a file that is not there is said, with one to start from', async () => {
    const ran = await seat.run('serve', '--config', '/nowhere/halligan.yaml');
    expect(ran.code).toBe(1);
    expect(ran.err).toContain('config/halligan.example.yaml is one to start from');
  });
});

describe('serve and worker', () => {
  test('a port that is taken is named, with the setting to change: exit 1', async () => {
    const ran = await seat.run('serve', '--config', halligan.configFile);
    expect(ran.code).toBe(1);
    expect(ran.err).toMatch(/127\.0\.0\.1:\d+ is taken by another process\. Stop that one, or set server\.listen/);
  });

  test('serve answers, and SIGTERM lets it finish: exit 0', async () => {
    const port = await freePort();
    const file = await configWith('serve.yaml', [new URL(halligan.url).host, `127.0.0.1:${port}`], ['level: error', 'level: info']);
    const serving = seat.start(['serve', '--config', file]);
    await serving.said(/"code":"listening"/);
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
    serving.child.kill('SIGTERM');
    const ran = await serving.done;
    expect(ran.code, ran.err).toBe(0);
    expect(ran.out).toBe('');
    expect(ran.err).toContain('"code":"stopped"');
  });

  test('--metrics gives this process an address of its own; what is no address is said', async () => {
    const listen = `127.0.0.1:${await freePort()}`;
    const working = seat.start(['worker', '--config', await configWith('metrics.yaml', ['level: error', 'level: info']), '--metrics', listen]);
    await working.said(/"code":"metrics_listening"/);
    expect(await (await fetch(`http://${listen}/metrics`)).text()).toMatch(/^halligan_database_up 1$/m);
    working.child.kill('SIGTERM');
    expect((await working.done).code).toBe(0);
    const refused = await seat.run('worker', '--config', halligan.configFile, '--metrics', 'everywhere');
    expect([refused.code, refused.err]).toEqual([1, '--metrics "everywhere": say host:port, as in 127.0.0.1:8300.\n']);
  });

  test('worker serves no pages and stops as well', async () => {
    const file = await configWith('worker.yaml', ['level: error', 'level: info']);
    const working = seat.start(['worker', '--config', file]);
    await working.said(/"code":"working"/);
    working.child.kill('SIGINT');
    expect((await working.done).code).toBe(0);
  });
});

describe('migrate', () => {
  test('applies what is pending and prints its names; a second run has nothing to do', async () => {
    const database = await testDatabase({ empty: true });
    try {
      const first = await seat.run('migrate', '--url', database.ownerUrl);
      expect(first.code, first.err).toBe(0);
      expect(first.out).toMatch(/^0001_house\n/);
      const second = await seat.run('migrate', '--url', database.ownerUrl);
      expect(second).toMatchObject({ code: 0, out: '' });
    } finally {
      await database.close();
    }
  });

  test('a role without the rights is told which one has them, without its password', async () => {
    const database = await testDatabase({ empty: true });
    try {
      const ran = await seat.run('migrate', '--url', database.appUrl);
      expect(ran.code).toBe(1);
      expect(ran.err).toContain('halligan_owner');
      expect(ran.err).not.toContain(new URL(database.appUrl).password);
    } finally {
      await database.close();
    }
  });
});

describe('audit keygen', () => {
  test('writes the private key for its owner only, and never over another', async () => {
    const file = join(seat.home, 'audit.key');
    const made = await seat.run('audit', 'keygen', '--name', 'halligan.example.com/audit', '--out', file);
    expect(made.code, made.err).toBe(0);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const privateKey = await readFile(file, 'utf8');
    expect(privateKey).toMatch(/^PRIVATE\+KEY\+halligan\.example\.com\/audit\+/);
    expect(await readFile(`${file}.pub`, 'utf8')).toBe(made.out);
    expect(made.err).not.toContain(privateKey.trim());
    const again = await seat.run('audit', 'keygen', '--name', 'halligan.example.com/audit', '--out', file);
    expect(again.code).toBe(1);
    expect(await readFile(file, 'utf8')).toBe(privateKey);
    const wrong = await seat.run('audit', 'verify', '/dev/null', '--key', file, '--checkpoints', '/dev/null');
    expect(wrong.code).toBe(2);
    expect(wrong.err).toContain('holds the private key');
  });

  test('a name that no log can have is refused', async () => {
    expect((await seat.run('audit', 'keygen', '--name', 'a b', '--out', join(seat.home, 'other.key'))).code).toBe(1);
  });
});

describe('help', () => {
  test('is on stdout, names every command, and explains the exit codes', async () => {
    const help = await seat.run('--help');
    expect(help).toMatchObject({ code: 0, err: '' });
    for (const name of ['login', 'request', 'psql', 'approve', 'audit', 'serve', 'demo']) expect(help.out).toMatch(new RegExp(`^  ${name}\\b`, 'm'));
    expect((await seat.run('help', 'exit-codes')).out).toMatch(/^ {2}6 {2}you are not one of those/m);
    expect((await seat.run('help', 'audit', 'verify')).out).toContain('--checkpoints <path>');
    expect((await seat.run('help', 'nothing')).code).toBe(2);
    expect((await seat.run()).code).toBe(2);
    expect((await seat.run('request', 'x', '--fro', '1h')).err).toContain('Did you mean --for?');
    expect((await seat.run('--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
