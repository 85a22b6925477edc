/** docker-compose.yml, as the Compose specification's reference loader reads it: its schema, interpolation and consistency, and our own rules on what it made of the file. */
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ComposeProject, type ComposeService, faultsOf, mountsOf } from '../house/compose-rules.ts';
import { installed, runTool } from './servers/install.ts';

interface Loaded extends ComposeProject {
  readonly name: string;
  readonly services: Readonly<
    Record<string, ComposeService & { readonly depends_on?: Record<string, { condition: string }>; readonly networks?: Record<string, unknown> }>
  >;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>;
}

const source = resolve('test/live/tools/compose');
let loader: string;
let folder: string;
let text: string;
let loaded: Loaded;

/** What the loader makes of this text, with the paths of this checkout. Rejects with what it said. */
async function load(content: string): Promise<Loaded> {
  const file = join(folder, 'docker-compose.yml');
  await writeFile(file, content);
  // Nothing of our own environment, so that a variable that the file wants would be missing.
  const { stdout } = await promisify(execFile)(loader, [process.cwd(), file], { env: {}, timeout: 30_000, maxBuffer: 16 * 1_048_576 });
  return JSON.parse(stdout) as Loaded;
}

beforeAll(async () => {
  const { version } = /compose-go\/v2 v(?<version>[\d.]+)/.exec(await readFile(join(source, 'go.mod'), 'utf8'))?.groups ?? {};
  const place = await installed(`compose-go-${version}`, async (making) => {
    for (const file of ['go.mod', 'go.sum', 'main.go']) await copyFile(join(source, file), join(making, file));
    await runTool('go', ['build', '-trimpath', '-o', join(making, 'compose'), '.'], { cwd: making });
  });
  loader = join(place, 'compose');
  folder = await mkdtemp(join(tmpdir(), 'halligan-compose-'));
  text = await readFile('docker-compose.yml', 'utf8');
  loaded = await load(text);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('the reference loader', () => {
  test('takes the file, needs nothing of the environment, and finds what it builds from', async () => {
    expect(loaded.name).toBe('halligan');
    for (const { build } of Object.values(loaded.services)) if (build) expect(build).toEqual({ context: process.cwd(), dockerfile: 'Dockerfile' });
    expect(text).not.toMatch(/(?<!\$)\$[{A-Za-z]/);
  });

  test.each([
    ['a key that the specification does not know', '    healthcheck:\n', '    helthcheck:\n', /services\.postgres\.helthcheck/],
    ['a wait for a service that is not there', '    migrate: { condition', '    migration: { condition', /depends on undefined service/],
    ['a condition that there is not', 'service_completed_successfully', 'service_completed', /condition/],
    ['a volume that is not declared', '  generated-redis:\n', '', /undefined volume generated-redis/],
    ['a network that is not declared', 'networks: [edge, inside]', 'networks: [edge, elsewhere]', /undefined network elsewhere/],
    [
      'a wait in a circle',
      "  migrate:\n    <<: *halligan\n    restart: 'no'\n",
      "  migrate:\n    <<: *halligan\n    restart: 'no'\n    links: [api-1]\n",
      /cycle/,
    ],
    ['a period without a unit', 'interval: 15s', 'interval: fifteen', /interval|duration/],
  ])('refuses %s', async (_what, was, becomes, said) => {
    expect(text).toContain(was);
    await expect(load(text.replace(was, becomes))).rejects.toThrow(said);
  });
});

test('what the loader made of it is pinned, watched, closed to others, without rights, and without a secret', async () => {
  const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
  expect(faultsOf(loaded, version)).toEqual([]);
});

test('only the proxy and Keycloak are published; nothing else has a way to the outside', () => {
  const published = Object.entries(loaded.services).filter(([, { ports }]) => ports && ports.length > 0);
  expect(published.map(([name]) => name).sort()).toEqual(['keycloak', 'proxy']);
  expect(loaded.networks['inside']?.internal).toBe(true);
  for (const [name, { networks, network_mode }] of Object.entries(loaded.services))
    expect(name === 'setup' ? network_mode : Object.keys(networks ?? {}).sort(), name).toEqual(
      name === 'setup' ? 'none' : ['keycloak', 'proxy'].includes(name) ? ['edge', 'inside'] : ['inside'],
    );
});

test('each waits for what it needs: secrets, then tables and rights, then the processes, then the proxy', () => {
  const waits = (name: string) =>
    Object.entries(loaded.services[name]?.depends_on ?? {})
      .map(([other, { condition }]) => `${other} ${condition.replace('service_', '')}`)
      .sort();
  for (const name of ['postgres', 'redis', 'openbao', 'keycloak']) expect(waits(name), name).toEqual(['setup completed_successfully']);
  expect(waits('migrate')).toEqual(['postgres healthy']);
  for (const name of ['api-1', 'api-2', 'worker-1', 'worker-2'])
    expect(waits(name), name).toEqual(['migrate completed_successfully', 'openbao-setup completed_successfully', 'redis healthy']);
  expect(waits('proxy')).toEqual(['api-1 healthy', 'api-2 healthy', 'keycloak healthy']);
});

test('the four processes of Halligan differ by name and command alone, and share the checkpoints', () => {
  const [first, ...others] = ['api-1', 'api-2', 'worker-1', 'worker-2'].map((name) => {
    const { hostname, command, ...rest } = loaded.services[name] ?? {};
    expect([hostname, command?.[0]]).toEqual([name, name.startsWith('api') ? 'serve' : 'worker']);
    return rest;
  });
  for (const other of others) expect(other).toEqual(first);
  expect(mountsOf(first ?? {}).filter(({ readOnly }) => !readOnly)).toEqual([
    { bind: false, source: 'checkpoints', target: '/var/lib/halligan/checkpoints', readOnly: false },
  ]);
});
