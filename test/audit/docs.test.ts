/** The programs printed in docs/audit.md do what it says: they accept a good export and refuse a changed one. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { every, type SyntheticLog, writeSynthetic } from './synthetic.ts';

let folder: string;
let good: SyntheticLog;
let document: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-audit-docs-'));
  good = await writeSynthetic(folder, every(100, 333));
  document = await readFile(new URL('../../docs/audit.md', import.meta.url), 'utf8');
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const program = (language: string): string => new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 's').exec(document)?.[1] ?? '';

async function tryOut(command: string, file: string): Promise<void> {
  const run = (log: string, key = good.verifierKey) => {
    const { status, stdout } = spawnSync(command, [file, log, join(good.checkpoints, 'latest'), key], { encoding: 'utf8', timeout: 20_000 });
    return { status, said: stdout.trim() };
  };
  expect(run(good.log)).toEqual({ status: 0, said: 'good: 333 entries' });
  const bytes = await readFile(good.log);
  const changed = join(folder, 'changed.jsonl');
  for (const at of [10, bytes.length >> 1, bytes.length - 3]) {
    const copy = Buffer.from(bytes);
    copy[at] = (copy[at] ?? 0) ^ 1;
    await writeFile(changed, copy);
    expect(run(changed)).toEqual({ status: 1, said: 'NOT the log that was signed' });
  }
  await writeFile(changed, bytes.subarray(0, bytes.lastIndexOf(10, bytes.length - 2) + 1));
  expect(run(changed).status).toBe(1);
  const { verifierKey } = await writeSynthetic(join(folder, 'other'), [1]);
  expect(run(good.log, verifierKey).status).toBe(1);
}

test('the twenty lines for Node', async () => {
  const file = join(folder, 'check.mjs');
  await writeFile(file, program('js'));
  expect(program('js').trim().split('\n').length).toBeLessThanOrEqual(20);
  await tryOut(process.execPath, file);
});

test('the twenty lines for Python are twenty lines', () => {
  expect(program('python').trim().split('\n').length).toBeLessThanOrEqual(20);
});
