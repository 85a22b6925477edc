/** The table of failpoints is the only list, every name of it stands at a step of the code, and nothing in service arms one. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { armFailpoint, failpoint, failpoints } from '../../src/domain/failpoint.ts';

afterEach(() => armFailpoint(undefined));

const sources = async (): Promise<{ file: string; text: string }[]> => {
  const files = (await readdir('src', { recursive: true })).filter((file) => file.endsWith('.ts') && file !== join('domain', 'failpoint.ts'));
  return Promise.all(files.map(async (file) => ({ file, text: await readFile(join('src', file), 'utf8') })));
};

test('every name of the table stands at one step, and every step is in the table', async () => {
  const named = (await sources()).flatMap(({ text }) => [...text.matchAll(/\bfailpoint(?:\?\.)?\('([^']+)'\)/g)].map((match) => match[1] ?? ''));
  expect(named.toSorted()).toEqual(Object.keys(failpoints).toSorted());
});

test('no file of the product arms a failpoint', async () => {
  expect((await sources()).filter(({ text }) => text.includes('armFailpoint')).map(({ file }) => file)).toEqual([]);
});

test('unarmed, a step is nothing; armed, the hook is told the name, and what it throws or waits for is thrown and waited for', async () => {
  expect(failpoint('commit.done')).toBeUndefined();
  const told: string[] = [];
  armFailpoint(async (name) => void told.push(name));
  await failpoint('commit.done');
  expect(told).toEqual(['commit.done']);
  armFailpoint(() => {
    throw new Error('here');
  });
  expect(() => failpoint('commit.done')).toThrow('here');
  armFailpoint(undefined);
  expect(failpoint('commit.done')).toBeUndefined();
});
