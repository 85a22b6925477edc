/** Imports point down, and the lint run says so: the real biome is shown bad imports in a copy, so that no other run is disturbed. */
import { spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, posix, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

/** What each room may import, written down here once more, by hand, from the design. */
const allowed: Record<string, readonly string[]> = {
  domain: [],
  config: ['domain'],
  db: ['domain', 'config'],
  audit: ['domain', 'config', 'db'],
  commands: ['domain', 'config', 'db', 'audit'],
  providers: ['domain', 'config'],
  queue: ['domain'],
  workers: ['domain', 'config', 'db', 'audit', 'commands', 'providers', 'queue', 'notify'],
  auth: ['domain', 'config', 'db', 'commands'],
  http: ['domain', 'db', 'audit', 'commands', 'auth'],
  web: ['domain', 'db', 'commands', 'auth'],
  cli: ['domain'],
  reap: ['domain', 'config', 'providers'],
  notify: ['domain', 'config', 'db'],
  slack: ['domain', 'config', 'db', 'commands', 'auth', 'notify'],
};
/** The demo sees everything and is seen by main.ts alone, so it needs no rule of its own: every other room's names it. */
const free = ['demo'];
/** The verifier is independent code that the terminal runs by itself. */
const exceptions = (from: string, to: string): boolean => from.startsWith('src/cli/') && /^src\/audit\/verify[a-z-]*\.ts$/.test(to);

const sources = async (): Promise<string[]> =>
  (await readdir('src', { recursive: true })).filter((file) => file.endsWith('.ts')).map((file) => `src/${file.replaceAll('\\', '/')}`);
const rooms = async (): Promise<string[]> => (await readdir('src', { withFileTypes: true })).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
const importsOf = (text: string): string[] => [...text.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*'([^']+)'/g)].map((match) => match[1] ?? '');

interface Biome {
  overrides: { includes: string[]; linter: { rules: { style: { noRestrictedImports?: { options: { patterns: { group: string[] }[] } } } } } }[];
}
const rules = async (): Promise<Map<string, string[]>> => {
  const { overrides } = JSON.parse(await readFile('biome.json', 'utf8')) as Biome;
  return new Map(
    overrides.flatMap(({ includes, linter }) => {
      const groups = linter.rules.style.noRestrictedImports?.options.patterns.flatMap((pattern) => pattern.group);
      return groups ? includes.map((include) => [include.replace(/^src\/(.*)\/\*\*$/, '$1'), groups] as const) : [];
    }),
  );
};

test('every room has a rule, and each rule closes exactly the rooms that are not below', async () => {
  const found = await rules();
  expect((await rooms()).filter((room) => !free.includes(room)).toSorted()).toEqual([...found.keys()].toSorted());
  expect([...found.keys()].toSorted()).toEqual(Object.keys(allowed).toSorted());
  const everyRoom = [...Object.keys(allowed), ...free];
  for (const [room, groups] of found) {
    const closed = groups.filter((group) => group.endsWith('/**')).map((group) => group.slice(3, -3));
    expect(closed.toSorted(), room).toEqual(everyRoom.filter((other) => other !== room && !allowed[room]?.includes(other)).toSorted());
    expect(groups, room).toContain('**/main.ts');
    expect(groups, room).toContain('**/compose.ts');
  }
});

test('as the files stand, imports point down; read without biome', async () => {
  const wrong: string[] = [];
  for (const file of await sources()) {
    const room = file.split('/')[1] ?? '';
    for (const to of importsOf(await readFile(file, 'utf8')).filter((path) => path.startsWith('.'))) {
      const target = posix.join(posix.dirname(file), to);
      const into = target.split('/')[1] ?? '';
      if (into === 'demo' && room !== 'demo' && file !== 'src/main.ts') wrong.push(`${file} → ${target}`);
      if (room.endsWith('.ts') || free.includes(room) || into === room) continue;
      if (!allowed[room]?.includes(into) && !exceptions(file, target)) wrong.push(`${file} → ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

test('the domain is pure: it reads no clock of its own accord, no file, no network and no environment', async () => {
  for (const file of (await sources()).filter((name) => name.startsWith('src/domain/'))) {
    const text = await readFile(file, 'utf8');
    expect(
      importsOf(text).filter((path) => !path.startsWith('.') && !['node:crypto', 'canonicalize', 'zod'].includes(path)),
      file,
    ).toEqual([]);
    expect(text, file).not.toMatch(/process\.|setTimeout|new Date\(\)|fetch\(/);
    // An id's time only helps sorting.
    if (file !== 'src/domain/ids.ts') expect(text, file).not.toContain('Date.now');
  }
});

test('the environment is read by the config room; the demo sets up its own, and the programs around the house hand theirs on', async () => {
  for (const file of await sources())
    if (!/^src\/(config|demo|cli)\/|^src\/(main|serve)\.ts$/.test(file)) expect(await readFile(file, 'utf8'), file).not.toContain('process.env');
});

describe('the real biome', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'halligan-lint-'));
    await copyFile('biome.json', join(folder, 'biome.json'));
    await put('src/domain/low.ts', 'export const low = 1;\n');
    for (const room of [...Object.keys(allowed), ...free]) await put(`src/${room}/there.ts`, 'export const there = 1;\n');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  async function put(file: string, text: string): Promise<void> {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), text);
  }
  /** What the linter says about the copy: rule and file of each error. */
  function lint(): Promise<string[]> {
    const child = spawn(process.execPath, [resolve('node_modules/@biomejs/biome/bin/biome'), 'lint', '--reporter=json', '--max-diagnostics=none', 'src'], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 25_000,
    });
    let out = '';
    child.stdout.on('data', (data: Buffer) => {
      out += data.toString();
    });
    return new Promise((done, fail) => {
      child.once('error', fail);
      child.once('close', () => {
        const { diagnostics } = JSON.parse(out) as { diagnostics: { category: string; location: { path: string | { file: string } } }[] };
        done(diagnostics.map(({ category, location }) => `${category} ${typeof location.path === 'string' ? location.path : location.path.file}`).toSorted());
      });
    });
  }

  test('refuses each import that points up or sideways, and none that points down', async () => {
    const bad: string[] = [];
    for (const room of Object.keys(allowed)) {
      for (const other of [...Object.keys(allowed), ...free].filter((name) => name !== room)) {
        const file = `src/${room}/to-${other}.ts`;
        await put(file, `import { there } from '../${other}/there.ts';\n\nexport const here = there;\n`);
        if (!allowed[room]?.includes(other)) bad.push(`lint/style/noRestrictedImports ${file}`);
      }
    }
    expect(bad.length).toBeGreaterThan(100);
    expect(await lint()).toEqual(bad.toSorted());
  });

  test('refuses it as a type, from a folder below, by import(), and of the files that put the house together', async () => {
    await put('src/main.ts', 'export const main = 1;\n');
    await put('src/compose.ts', 'export const compose = 1;\n');
    const bad: Record<string, string> = {
      'src/domain/a.ts': "import type { there } from '../db/there.ts';\n\nexport type Here = typeof there;\n",
      'src/db/stores/b.ts': "import { there } from '../../commands/there.ts';\n\nexport const here = there;\n",
      'src/http/routes/c.ts': "export { there } from '../../web/there.ts';\n",
      'src/web/d.ts': "export const here = async () => (await import('../providers/there.ts')).there;\n",
      'src/commands/e.ts': "import { main } from '../main.ts';\n\nexport const here = main;\n",
      'src/workers/f.ts': "import { compose } from '../compose.ts';\n\nexport const here = compose;\n",
    };
    for (const [file, text] of Object.entries(bad)) await put(file, text);
    expect(await lint()).toEqual(
      Object.keys(bad)
        .map((file) => `lint/style/noRestrictedImports ${file}`)
        .toSorted(),
    );
  });

  test('lets the terminal use the verifier, and nothing else of the audit room', async () => {
    await put('src/audit/verify.ts', 'export const verify = 1;\n');
    await put('src/audit/verify-tree.ts', 'export const tree = 1;\n');
    await put('src/audit/seal.ts', 'export const seal = 1;\n');
    await put(
      'src/cli/good.ts',
      "import { verify } from '../audit/verify.ts';\nimport { tree } from '../audit/verify-tree.ts';\n\nexport const both = [verify, tree];\n",
    );
    await put('src/cli/bad.ts', "import { seal } from '../audit/seal.ts';\n\nexport const here = seal;\n");
    expect(await lint()).toEqual(['lint/style/noRestrictedImports src/cli/bad.ts']);
  });

  test('refuses a cycle within a room', async () => {
    await put('src/domain/one.ts', "import { two } from './two.ts';\n\nexport const one = (): number => two();\n");
    await put('src/domain/two.ts', "import { three } from './three.ts';\n\nexport const two = (): number => three();\n");
    await put('src/domain/three.ts', "import { one } from './one.ts';\n\nexport const three = (): number => one();\n");
    const cycles = await lint();
    expect(cycles.length).toBeGreaterThan(0);
    for (const said of cycles) expect(said).toMatch(/^lint\/suspicious\/noImportCycles src\/domain\/(one|two|three)\.ts$/);
  });
});
