import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { readSecret, secretRef } from '../../src/config/secrets.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-secrets-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  delete process.env['HALLIGAN_TEST_SECRET'];
});

test('a reference is to a file beside the config, or to a variable', () => {
  expect(secretRef({ passwordFile: 'a/b' }, 'password', '/etc/halligan')).toEqual({ file: '/etc/halligan/a/b' });
  expect(secretRef({ passwordFile: '/a/b' }, 'password', '/etc/halligan')).toEqual({ file: '/a/b' });
  expect(secretRef({ passwordEnv: 'X' }, 'password', '/etc')).toEqual({ env: 'X' });
  expect(secretRef({ otherFile: 'a' }, 'password', '/etc')).toBeUndefined();
});

test('one newline at the end is no part of it; everything else is', async () => {
  const file = join(folder, 'secret');
  for (const [text, secret] of [
    ['s3cret\n', 's3cret'],
    ['s3cret\r\n', 's3cret'],
    ['s3cret', 's3cret'],
    [' two words \n\n', ' two words \n'],
  ] as const) {
    await writeFile(file, text);
    expect(await readSecret({ file })).toBe(secret);
  }
});

test('it is read anew each time, so that a rotated secret is picked up', async () => {
  const file = join(folder, 'rotated');
  await writeFile(file, 'one');
  expect(await readSecret({ file })).toBe('one');
  await writeFile(file, 'two');
  expect(await readSecret({ file })).toBe('two');
  process.env['HALLIGAN_TEST_SECRET'] = 'three';
  expect(await readSecret({ env: 'HALLIGAN_TEST_SECRET' })).toBe('three');
});

test('what is missing or empty is told by its name', async () => {
  const file = join(folder, 'empty');
  await writeFile(file, '\n');
  await expect(readSecret({ file })).rejects.toThrow(`the secret file ${file} is empty`);
  await expect(readSecret({ file: join(folder, 'none') })).rejects.toThrow(`the secret file ${join(folder, 'none')} cannot be read (ENOENT)`);
  await expect(readSecret({ env: 'HALLIGAN_TEST_SECRET' })).rejects.toThrow('the environment variable HALLIGAN_TEST_SECRET is not set');
});
