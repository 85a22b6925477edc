/** What holds for the house as a whole: its words for errors, its doc comments, its manners, its front door. */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { errorCodes } from '../../src/domain/errors.ts';
import { statusOf } from '../../src/http/problem.ts';

const filesOf = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.ts')).map((file) => join(folder, file));

describe('docs/errors.md', () => {
  test('has every code, in order, with its status, the sentence of the code, and what to do', async () => {
    const rows = [...(await readFile('docs/errors.md', 'utf8')).matchAll(/^\| `([a-z_]+)` \| (\d{3}) \| (.+?) \| (.+?) \|$/gm)].map((match) => ({
      code: match[1] ?? '',
      status: Number(match[2]),
      meaning: match[3],
      next: match[4] ?? '',
    }));
    expect(rows.map(({ code, status, meaning }) => ({ code, status, meaning }))).toEqual(
      Object.keys(errorCodes)
        .toSorted()
        .map((code) => ({ code, status: statusOf[code as keyof typeof errorCodes], meaning: errorCodes[code as keyof typeof errorCodes] })),
    );
    for (const { code, next } of rows) expect(next.length, code).toBeGreaterThan(15);
  });
});

describe('docs/architecture.md', () => {
  test('names every room, and every file that it names is there', async () => {
    const text = await readFile('docs/architecture.md', 'utf8');
    for (const room of (await readdir('src', { withFileTypes: true })).filter((entry) => entry.isDirectory())) expect(text).toContain(`\`${room.name}/\``);
    const named = [...text.matchAll(/`((?:src|test|docs|migrations|config)\/[\w./-]+)`/g)].map((match) => match[1] ?? '');
    expect(named.length).toBeGreaterThan(10);
    for (const file of named)
      await expect(
        readdir(file).catch(() => readFile(file)),
        file,
      ).resolves.toBeDefined();
  });
});

test.each(['domain', 'config', 'commands', 'audit', 'providers', 'queue', 'workers'])('every exported function of src/%s says what it means', async (room) => {
  const bare: string[] = [];
  for (const file of await filesOf(`src/${room}`)) {
    const lines = (await readFile(file, 'utf8')).split('\n');
    for (const [index, line] of lines.entries()) {
      const name = /^export (?:async )?function\*? (\w+)|^export const (\w+)(?:: [^=]+)? =(?: async)?(?: <.*>)?(?: ?\(|$)/.exec(line);
      if (name && !lines[index - 1]?.trimEnd().endsWith('*/')) bare.push(`${file}: ${name[1] ?? name[2]}`);
    }
  }
  expect(bare).toEqual([]);
});

test('every module opens with why it exists', async () => {
  const bare: string[] = [];
  for (const file of await filesOf('src')) if (!/^(#!.*\n)?\/\*\*/.test(await readFile(file, 'utf8'))) bare.push(file);
  expect(bare).toEqual([]);
});

test('no naked TODO, and nothing printed but by the terminal, the demo and the start', async () => {
  const found: string[] = [];
  for (const file of [...(await filesOf('src')), ...(await filesOf('test'))]) {
    if (file.endsWith('house.test.ts')) continue;
    for (const [index, line] of (await readFile(file, 'utf8')).split('\n').entries()) {
      if (/\b(TODO|FIXME|XXX)\b/.test(line)) found.push(`${file}:${index + 1}`);
      if (/\bconsole\.\w+\(/.test(line) && /^src\//.test(file) && !/^src\/(cli|demo)\/|^src\/(main|serve)\.ts$/.test(file)) found.push(`${file}:${index + 1}`);
    }
  }
  expect(found).toEqual([]);
});

test('files stay small enough to read', async () => {
  const long: string[] = [];
  for (const file of await filesOf('src')) {
    const { length } = (await readFile(file, 'utf8')).split('\n');
    if (length > 500) long.push(`${file}: ${length} lines`);
  }
  expect(long).toEqual([]);
});

test('bin/halligan.js starts, and says the version of package.json', async () => {
  const { bin, version } = JSON.parse(await readFile('package.json', 'utf8')) as { bin: { halligan: string }; version: string };
  const { stdout } = await promisify(execFile)(process.execPath, [bin.halligan, '--version'], { timeout: 20_000 });
  expect(stdout.trim()).toBe(version);
});
