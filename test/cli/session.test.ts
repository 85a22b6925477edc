import { chmod, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { currentSession, originOf, readSession, serverOf, sessionFile, writeSession } from '../../src/cli/session.ts';

let folder: string;
let env: NodeJS.ProcessEnv;
const server = 'https://halligan.example.com';
const exits = (exitCode: number) => expect.objectContaining({ exitCode });

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'session-'));
  env = { HALLIGAN_HOME: join(folder, 'home') };
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test('a login is written for its owner only, leaves no draft, and is read back', async () => {
  await writeSession(env, { server, token: 'hgt_a', expiresAt: '2099-01-01T00:00:00Z', name: 'oncall' });
  expect(await readdir(join(folder, 'home'))).toEqual(['login.json']);
  expect((await stat(sessionFile(env))).mode & 0o777).toBe(0o600);
  expect((await stat(join(folder, 'home'))).mode & 0o777).toBe(0o700);
  expect(await currentSession(env)).toMatchObject({ server, token: 'hgt_a' });
  expect(await serverOf(env)).toBe(server);
});

test('a file that others can read, that is a link, or that is damaged is refused with what mends it', async () => {
  await writeSession(env, { server, token: 'hgt_a' });
  await chmod(sessionFile(env), 0o640);
  await expect(readSession(env)).rejects.toMatchObject({ next: `chmod 600 ${sessionFile(env)}` });
  await chmod(sessionFile(env), 0o600);
  await chmod(join(folder, 'home'), 0o777);
  await expect(readSession(env)).rejects.toMatchObject({ next: `chmod 700 ${join(folder, 'home')}` });
  await chmod(join(folder, 'home'), 0o700);
  await writeFile(sessionFile(env), '{"server":');
  await expect(readSession(env)).rejects.toThrow('damaged');
  await rm(sessionFile(env));
  await writeFile(join(folder, 'elsewhere'), '{}', { mode: 0o600 });
  await symlink(join(folder, 'elsewhere'), sessionFile(env));
  await expect(readSession(env)).rejects.toThrow('cannot be read (ELOOP)');
});

test('a token goes to its own server only', async () => {
  await writeSession(env, { server, token: 'hgt_a' });
  await expect(currentSession({ ...env, HALLIGAN_SERVER: 'https://other.example.com' })).rejects.toEqual(exits(4));
  await expect(currentSession({ ...env, HALLIGAN_TOKEN: 'hgt_b' })).rejects.toEqual(exits(2));
  expect(await currentSession({ ...env, HALLIGAN_TOKEN: 'hgt_b', HALLIGAN_SERVER: 'https://other.example.com' })).toEqual({
    server: 'https://other.example.com',
    token: 'hgt_b',
  });
});

test('no login, and one that has ended, are exit 4', async () => {
  await expect(currentSession(env)).rejects.toEqual(exits(4));
  await writeSession(env, { server, token: 'hgt_a', expiresAt: '2026-01-01T00:00:00Z' });
  await expect(currentSession(env)).rejects.toEqual(exits(4));
});

test('a server is an https origin, or http on this machine', () => {
  expect(originOf('https://halligan.example.com/')).toBe(server);
  expect(originOf('http://127.0.0.1:8300')).toBe('http://127.0.0.1:8300');
  for (const bad of [
    'halligan.example.com',
    'http://halligan.example.com',
    'https://a:b@halligan.example.com',
    'https://halligan.example.com/path',
    'ftp://x',
    'http://127.0.0.1.evil.example',
  ]) {
    expect(() => originOf(bad), bad).toThrow(exits(2));
  }
});
