/**
 * What docker-compose.yml starts, as processes of this machine: its own files, command lines and health checks, in which only
 * the names of containers, their ports and their paths are replaced, as the containers' network and mounts would do it.
 */
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, delimiter, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { type EmbeddedPostgres, startPostgres } from '../../src/demo/embedded-postgres.ts';
import { type ComposeProject, type ComposeService, mountsOf } from '../house/compose-rules.ts';
import { awaitReady, type Child, freePort, runTool, startChild } from './servers/install.ts';
import { install as installKeycloak } from './servers/keycloak.ts';
import { install as installBao } from './servers/openbao.ts';

export const apis = ['api-1', 'api-2'] as const;
export const workers = ['worker-1', 'worker-2'] as const;
export type Halligan = (typeof apis)[number] | (typeof workers)[number];

export interface ComposeHouse {
  readonly url: string;
  readonly folder: string;
  readonly postgres: EmbeddedPostgres;
  /** What `docker compose run --rm setup passwords` shows: by name. */
  readonly passwords: Readonly<Record<string, string>>;
  readonly children: ReadonlyMap<string, Child>;
  /** Starts a service, again if need be, and waits until its health check says that it is well. */
  start(name: string): Promise<void>;
  /** Runs a service that comes to its own end, or another program in its place. Gives what it printed. */
  runOnce(name: string, ...command: string[]): Promise<string>;
  close(): Promise<void>;
}

type Replacements = readonly (readonly [string, string])[];
const replaced = (text: string, by: Replacements): string => by.reduce((now, [from, to]) => now.replaceAll(from, to), text);

/** Where each name and port of the containers' network is here. Longer ones come first. */
function network(ports: Readonly<Record<string, number>>, service: string): Replacements {
  // Only the API processes listen for people; of the others that line is read and not used.
  const at = (name: string): string => `127.0.0.1:${ports[name] ?? 8300}`;
  return [
    ['host: postgres\n    port: 5432', `host: 127.0.0.1\n    port: ${ports['postgres']}`],
    ...[...apis, 'postgres', 'redis', 'openbao'].map((name) => [`${name}:${name.startsWith('api-') ? 8300 : portOf[name]}`, at(name)] as const),
    ['openbao:8201', at('openbao-cluster')],
    ['0.0.0.0:8200', at('openbao')],
    ['keycloak.localhost:8380', at('keycloak')],
    ['--http-port=8380', `--http-port=${ports['keycloak']}`],
    ['/127.0.0.1/9000', `/127.0.0.1/${ports['keycloak-management']}`],
    ['localhost:8300', at('proxy')],
    ['0.0.0.0:8300', at(service)],
    ['127.0.0.1:8080', at('proxy')],
    ['bind :8080', `bind ${at('proxy')}`],
    ['127.0.0.1:8200', at('openbao')],
    ['127.0.0.1:9464', at(`${service}-metrics`)],
    ['port 6379', `port ${ports['redis']}\nbind 127.0.0.1`],
    ['redis-cli ping', `redis-cli -p ${ports['redis']} ping`],
    // A container is known by its host name; these four share one.
    ['  listen: 127.0.0.1', `  instance: ${service}\n  listen: 127.0.0.1`],
  ];
}
const portOf: Readonly<Record<string, number>> = { postgres: 5432, redis: 6379, openbao: 8200 };

class Topology {
  readonly project: ComposeProject;
  readonly folder: string;
  readonly ports: Readonly<Record<string, number>>;
  readonly children = new Map<string, Child>();
  readonly #programs: Readonly<Record<string, readonly string[]>>;

  constructor(project: ComposeProject, folder: string, ports: Readonly<Record<string, number>>, programs: Readonly<Record<string, readonly string[]>>) {
    this.project = project;
    this.folder = folder;
    this.ports = ports;
    this.#programs = programs;
  }

  service(name: string): ComposeService {
    const found = this.project.services[name];
    if (!found) throw new Error(`docker-compose.yml has no service ${name}`);
    return found;
  }

  /** Where the service finds what it mounts: a place in its container, and one here. */
  #places(name: string): [string, string][] {
    const mounts = mountsOf(this.service(name)).map(({ bind, source, target }): [string, string] => [
      target,
      bind || (name !== 'setup' && source.startsWith('generated-'))
        ? join(this.folder, 'mounts', name, bind ? basename(source) : source)
        : join(this.folder, source.startsWith('generated-') ? 'setup' : 'volumes', source.replace(/^generated-/, '')),
    ]);
    return mounts.sort(([one], [other]) => other.length - one.length);
  }

  /** A text of this service, as it is true here. */
  translate(name: string, text: string): string {
    return replaced(replaced(text, this.#places(name)), network(this.ports, name));
  }

  /** Copies what the service mounts to where it finds it here, translated. */
  async mount(name: string): Promise<void> {
    const places = new Map(this.#places(name));
    for (const { bind, source, target } of mountsOf(this.service(name))) {
      const to = places.get(target) ?? '';
      if (bind) await this.#copy(name, source, to);
      else if (name === 'setup' || !source.startsWith('generated-')) await mkdir(to, { recursive: true });
      else {
        const from = join(this.folder, 'setup', source.replace(/^generated-/, ''));
        for (const file of await readdir(from)) await this.#copy(name, join(from, file), join(to, file));
      }
    }
  }

  async #copy(name: string, from: string, to: string): Promise<void> {
    await mkdir(join(to, '..'), { recursive: true });
    await rm(to, { force: true });
    const content = await readFile(from);
    // Keys are bytes, and stay what they are.
    await writeFile(to, from.endsWith('.key') && !from.endsWith('audit.key') ? content : this.translate(name, content.toString('utf8')));
  }

  /** The command line of the service, with the program that is here in place of the image's. */
  command(name: string, instead?: readonly string[]): [string, string[]] {
    const { entrypoint, command, image = '' } = this.service(name);
    const words = [
      ...(entrypoint ?? (image.startsWith('halligan:') || image.includes('keycloak') ? [image.replace(/.*\/|:.*/g, '')] : [])),
      ...(instead ?? command ?? []),
    ];
    const [first = '', ...rest] = words;
    const program = this.#programs[first] ?? [first];
    return [program[0] ?? '', [...program.slice(1), ...rest.map((word) => this.translate(name, word))]];
  }

  env(name: string): NodeJS.ProcessEnv {
    const said = Object.entries(this.service(name).environment ?? {}).map(([key, value]) => [key, this.translate(name, value ?? '')]);
    const config = this.#places(name).find(([target]) => target === '/etc/halligan/halligan.yaml');
    const setup = name === 'setup' ? { SETUP_FOLDER: join(this.folder, 'setup'), HALLIGAN: resolve('bin/halligan.js') } : {};
    return {
      PATH: `${this.#programs['bao']?.[0]?.replace(/\/bao$/, '')}${delimiter}${process.env['PATH']}`,
      HOME: join(this.folder, 'home'),
      ...(config ? { HALLIGAN_CONFIG: config[1] } : {}),
      ...(process.env['JAVA_HOME'] ? { JAVA_HOME: process.env['JAVA_HOME'] } : {}),
      ...setup,
      ...Object.fromEntries(said),
    };
  }

  /** Whether the service's own health check says that it is well. */
  async healthy(name: string, env: NodeJS.ProcessEnv = {}): Promise<boolean> {
    const [how, ...words] = this.service(name).healthcheck?.test ?? [];
    // Compose reads $$ as one $.
    const translated = words.map((word) => this.translate(name, word).replaceAll('$$', '$'));
    const [program = '', ...args] = how === 'CMD-SHELL' ? ['/bin/sh', '-c', ...translated] : translated;
    return promisify(execFile)(program, args, { timeout: 5_000, env: { ...this.env(name), ...env } }).then(
      () => true,
      () => false,
    );
  }

  async start(name: string, seconds = 60, more: readonly string[] = []): Promise<void> {
    await this.mount(name);
    const [program, args] = this.command(name);
    const child = startChild(program, [...args, ...more], this.env(name), { cwd: join(this.folder, 'home') });
    this.children.set(name, child);
    await awaitReady(child, name, seconds, () => this.healthy(name));
  }

  async runOnce(name: string, ...instead: string[]): Promise<string> {
    await this.mount(name);
    const [program, args] = this.command(name, instead.length > 0 ? instead : undefined);
    return runTool(program, args, { env: this.env(name) });
  }
}

/** Starts all of it in the order in which the file says that each waits for others; `folder` is made and removed here. */
export async function startComposeHouse(parent: string): Promise<ComposeHouse> {
  const project = parse(await readFile('docker-compose.yml', 'utf8'), { merge: true }) as ComposeProject;
  const folder = await mkdtemp(join(parent, 'compose-'));
  await chmod(folder, 0o755);
  const undo: (() => Promise<unknown>)[] = [() => rm(folder, { recursive: true, force: true })];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    await mkdir(join(folder, 'home'), { mode: 0o700 });
    const keycloak = await keycloakIn(join(folder, 'keycloak'));
    const programs = {
      node: [process.execPath],
      halligan: [process.execPath, resolve('bin/halligan.js')],
      'redis-server': ['/usr/bin/redis-server'],
      bao: [join(await installBao(), 'bao')],
      haproxy: ['/usr/sbin/haproxy'],
      keycloak: ['bash', join(keycloak, 'bin', 'kc.sh')],
    };
    const names = [
      ...apis,
      'postgres',
      'redis',
      'openbao',
      'openbao-cluster',
      'keycloak',
      'keycloak-management',
      'proxy',
      ...[...apis, ...workers].map((name) => `${name}-metrics`),
    ];
    const ports: Record<string, number> = {};
    for (const name of names) ports[name] = await freePort();
    const all = new Topology(project, folder, ports, programs);
    await all.runOnce('setup');
    const superuserPassword = (await readFile(join(folder, 'setup/postgres/superuser'), 'utf8')).trim();
    const postgres = await postgresOf(all, superuserPassword);
    undo.push(() => postgres.stop());
    undo.push(() => Promise.all([...all.children.values()].map((child) => child.stop())));
    await initialise(all, postgres, superuserPassword);
    if (!(await all.healthy('postgres', { PGPORT: String(ports['postgres']) }))) throw new Error('the health check of postgres says no');
    await linkKeycloakData(all, keycloak);
    const starting = all.start('keycloak', 240, ['--http-host=127.0.0.1', `--http-management-port=${ports['keycloak-management']}`]);
    // Told when it is waited for; until then it is nobody's unhandled rejection.
    starting.catch(() => undefined);
    await all.start('redis');
    await all.start('openbao');
    await all.runOnce('openbao-setup');
    await all.runOnce('migrate');
    for (const name of [...apis, ...workers]) await all.start(name);
    await starting;
    await all.start('proxy');
    const shown = await all.runOnce('setup', 'passwords');
    const passwords = Object.fromEntries([...shown.matchAll(/^ {2}(\S+) +([a-z2-9-]{23})/gm)].map((match) => [match[1], match[2]]));
    return {
      url: `http://127.0.0.1:${ports['proxy']}`,
      folder,
      postgres,
      passwords,
      children: all.children,
      start: (name) => all.start(name),
      runOnce: (name, ...command) => all.runOnce(name, ...command),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The embedded server in place of the image's: by the same settings, and the same way of asking for passwords. */
async function postgresOf(topology: Topology, superuserPassword: string): Promise<EmbeddedPostgres> {
  const settings = Object.fromEntries(
    (topology.service('postgres').command ?? []).flatMap((word) => (word.includes('=') ? [word.split('=') as [string, string]] : [])),
  );
  return startPostgres({ dataDirectory: join(topology.folder, 'postgres'), superuserPassword, port: topology.ports['postgres'] ?? 0, fast: true, settings });
}

/** What the image does once with the files of /docker-entrypoint-initdb.d. */
async function initialise(topology: Topology, postgres: EmbeddedPostgres, password: string): Promise<void> {
  await topology.mount('postgres');
  const env = {
    ...topology.env('postgres'),
    PGHOST: '127.0.0.1',
    PGPORT: String(postgres.port),
    PGUSER: 'postgres',
    PGPASSWORD: password,
    PGDATABASE: 'postgres',
  };
  const script = topology.translate('postgres', '/docker-entrypoint-initdb.d/postgres.sql');
  await runTool('psql', ['-v', 'ON_ERROR_STOP=1', '--no-password', '--no-psqlrc', '-f', script], { env });
}

/** A Keycloak of our own: the program is shared, what it writes is not. */
async function keycloakIn(home: string): Promise<string> {
  const dist = await installKeycloak();
  await mkdir(home);
  for (const entry of await readdir(dist)) {
    if (['lib', 'bin', 'conf'].includes(entry)) await cp(join(dist, entry), join(home, entry), { recursive: true });
    else if (entry !== 'data') await symlink(join(dist, entry), join(home, entry));
  }
  return home;
}

/** Its data folder holds the generated files, as the mounts of the container do. */
async function linkKeycloakData(topology: Topology, home: string): Promise<void> {
  const data = topology.translate('keycloak', '/opt/keycloak/data');
  await mkdir(data, { recursive: true });
  await symlink(data, join(home, 'data'));
  await symlink(topology.translate('keycloak', '/opt/keycloak/data/import'), join(data, 'import'));
}
