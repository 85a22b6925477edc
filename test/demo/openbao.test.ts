/** Finding OpenBao, and that no server stays behind. The server itself is tried by test/live/vault-demo.test.ts, where there is one. */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { findBao, startDevOpenBao } from '../../src/demo/openbao.ts';
import { isAlive } from '../../src/demo/processes.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-bao-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const program = async (name: string, text: string, mode = 0o755): Promise<string> => {
  const file = join(folder, name);
  await writeFile(file, `#!/bin/sh\n${text}\n`, { mode });
  return file;
};

test('it is the named program, or the one on the PATH, or none', async () => {
  expect(await findBao({ PATH: `${folder}::/nowhere` })).toBeUndefined();
  const named = await program('another', 'exit 0');
  const onPath = await program('bao', 'exit 0');
  expect(await findBao({ PATH: `/nowhere:${folder}` })).toBe(onPath);
  expect(await findBao({ PATH: folder, HALLIGAN_DEMO_BAO: named })).toBe(named);
});

test('a named program that cannot be run is an error that says how to get one', async () => {
  const plain = await program('plain', '', 0o644);
  for (const wrong of [plain, folder, join(folder, 'gone')])
    await expect(findBao({ PATH: folder, HALLIGAN_DEMO_BAO: wrong })).rejects.toThrow(/is not a program that can be run\. pip install/);
});

test('a server that ends at once is told with its last words, without its token', async () => {
  const broken = await program('broken', 'echo "no memory for $BAO_DEV_ROOT_TOKEN_ID" >&2; exit 3');
  const error = await startDevOpenBao(broken).catch((failure: Error) => failure);
  expect((error as Error).message).toBe(`${broken} server -dev ended at once: no memory for …`);
});

test('a server whose demo is killed ends with it', async () => {
  const file = join(folder, 'pid');
  const stuck = await program('stuck', `echo $$ > '${file}.new'; mv '${file}.new' '${file}'; exec sleep 120`);
  const code = `await (await import(${JSON.stringify(new URL('../../src/demo/openbao.ts', import.meta.url).href)})).startDevOpenBao(${JSON.stringify(stuck)})`;
  const demo = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: 'ignore' });
  const pid = await vi.waitFor(async () => Number(await readFile(file, 'utf8')), { timeout: 15_000, interval: 50 });
  expect(isAlive(pid)).toBe(true);
  demo.kill('SIGKILL');
  await vi.waitFor(() => expect(isAlive(pid)).toBe(false), { timeout: 10_000, interval: 50 });
});
