/** The simulation in the small: a few hundred seeds hold, every planted bug is found, and a seed replays exactly, alone or after others. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { invariants } from './invariants.ts';
import { plants } from './planted.ts';

/** The simulation takes time and chance over for a whole thread, so it runs beside the tests. */
async function simulate(...args: string[]): Promise<{ ok: boolean; said: string }> {
  try {
    return { ok: true, said: (await promisify(execFile)(process.execPath, ['test/sim/run.ts', ...args], { timeout: 110_000, maxBuffer: 2 ** 24 })).stdout };
  } catch (error) {
    return { ok: false, said: String((error as { stdout?: string }).stdout ?? error) };
  }
}

const fingerprint = ({ said }: { said: string }): number => Number(/fingerprint (\d+)/.exec(said)?.[1]);

test('three hundred seeds hold every invariant', async () => {
  const run = await simulate('--seeds', '300');
  expect(run.ok, run.said).toBe(true);
  expect(run.said).toMatch(/\n300 passed, 0 failed\n$/);
}, 120_000);

test('every planted bug is found, by an invariant that it breaks', async () => {
  const run = await simulate('--planted');
  expect(run.ok, run.said).toBe(true);
  expect(run.said).toMatch(new RegExp(`\\n${plants.length} passed, 0 failed\\n$`));
}, 120_000);

test('a bug is planted for each invariant that is judged, and each is described', () => {
  const found = new Set(plants.flatMap(({ finds }) => finds));
  expect([...found].toSorted()).toEqual(
    Object.keys(invariants)
      .filter((key) => key !== 'unforeseen')
      .toSorted(),
  );
});

test('a seed is the same run alone, with its trace, and after other seeds; a failing one says what broke', async () => {
  const [alone, before, all] = [await simulate('--seed', '77'), await simulate('--from', '70', '--seeds', '7'), await simulate('--from', '70', '--seeds', '8')];
  expect((fingerprint(before) + fingerprint(alone)) % 2 ** 32).toBe(fingerprint(all));
  const first = await simulate('--plant', 'believes-2xx', '--from', '1', '--seeds', '40');
  const seed = /^seed (\d+): invariant 5/m.exec(first.said)?.[1] ?? 'none';
  const [once, again] = [await simulate('--plant', 'believes-2xx', '--seed', seed), await simulate('--plant', 'believes-2xx', '--seed', seed)];
  expect(once.ok).toBe(false);
  expect(once.said).toContain('invariant 5: what targets hold is in rows not yet revoked; revoked is read back');
  expect(again.said).toBe(once.said);
}, 120_000);

test('docs/operations.md names the suite and how to replay', async () => {
  const docs = await readFile('docs/operations.md', 'utf8');
  for (const said of ['npm run test:sim', '-- --seed', '-- --planted']) expect(docs).toContain(said);
});
