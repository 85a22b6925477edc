/**
 * `npm run test:live [-- --only vault|aws|kubernetes|postgres|together|identity|redis|compose]`: the providers, login at Keycloak, the queue on Redis, and the house of docker-compose.yml, against real servers, each installed on first
 * use and started as a child of the tests. A target whose tools are missing is named, with how to get them, and counts as
 * failed; nothing is skipped. Ends with the line `N passed, N failed`.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';

/** What a target's servers need on the machine, and how a person gets it. */
interface Need {
  readonly there: () => boolean;
  readonly how: string;
}
const command = (name: string, args: readonly string[], how: string): Need => ({ there: () => spawnSync(name, args, { stdio: 'ignore' }).status === 0, how });
const python = command('python3', ['-c', 'import venv, ensurepip'], 'Python 3.11 or newer with venv (Debian: apt-get install python3-venv)');
const go = command('go', ['version'], 'Go 1.24 or newer, which fetches the version it needs by itself (https://go.dev/dl)');
const openssl = command('openssl', ['version'], 'openssl (Debian: apt-get install openssl)');
const java = command('java', ['-version'], 'Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)');
const maven = command('mvn', ['--version'], 'Maven, which fetches Keycloak (Debian: apt-get install maven)');
const chromium: Need = {
  there: () => existsSync(process.env['CHROMIUM'] ?? '/usr/bin/chromium'),
  how: 'Chromium (Debian: apt-get install chromium), or CHROMIUM set to its path',
};
const postgres15: Need = { there: () => existsSync('/usr/lib/postgresql/15/bin/postgres'), how: 'PostgreSQL 15 (Debian 12: apt-get install postgresql-15)' };
const psql = command('psql', ['--version'], 'psql (Debian: apt-get install postgresql-client)');
const haproxy: Need = {
  there: () => existsSync('/usr/sbin/haproxy'),
  how: 'HAProxy 2.4 or newer (Debian 12: apt-get install haproxy; the service need not run)',
};
const root: Need = { there: () => process.getuid?.() === 0, how: 'root, for a mount namespace in which everything is read-only' };
const redis: Need = { there: () => existsSync('/usr/bin/redis-server'), how: 'Redis 7 (Debian 12: apt-get install redis-server; the service need not run)' };

/** By the name that `--only` takes: a target's test files begin with it. */
const targets: Readonly<Record<string, readonly Need[]>> = {
  vault: [python, openssl],
  aws: [python, go],
  kubernetes: [go, openssl],
  postgres: [postgres15],
  together: [python, go, openssl],
  identity: [python, java, maven, chromium],
  redis: [redis],
  compose: [go, python, java, maven, redis, psql, haproxy, root],
};

const bin = resolve('node_modules/.bin');
const env = { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH']}` };
let passed = 0;
let failed = 0;

function chosen(): string[] {
  const given = process.argv.slice(2);
  if (given.length === 0) return Object.keys(targets);
  const only = given[0] === '--only' ? given.slice(1).flatMap((names) => names.split(',')) : [];
  if (only.length > 0 && only.every((name) => Object.hasOwn(targets, name))) return only;
  console.error(`usage: npm run test:live [-- --only ${Object.keys(targets).join('|')}]`);
  process.exit(2);
}

/** The targets that can be had here; the others are told and counted as failed. */
function available(names: readonly string[]): string[] {
  return names.filter((name) => {
    const missing = (targets[name] ?? []).filter((need) => !need.there());
    const files = filesOf(name);
    if (missing.length === 0 && files.length > 0) return true;
    failed += 1;
    if (files.length === 0) console.error(`live: ${name} has no tests`);
    for (const need of missing) console.error(`live: ${name} cannot be had here. It needs ${need.how}.`);
    return false;
  });
}

const filesOf = (name: string): string[] =>
  readdirSync('test/live')
    .filter((file) => file.endsWith('.test.ts') && (file === `${name}.test.ts` || file.startsWith(`${name}-`)))
    .map((file) => `test/live/${file}`);

const run = (args: readonly string[]): Promise<boolean> =>
  new Promise((done) => {
    const child = spawn(join(bin, 'vitest'), args, { stdio: 'inherit', env });
    child.once('error', (error) => {
      console.error(`vitest could not be started: ${error.message}. Run npm install first.`);
      done(false);
    });
    child.once('exit', (code) => done(code === 0));
  });

const names = available(chosen());
if (names.length > 0) {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-live-report-'));
  const file = join(folder, 'report.json');
  // One file after the other: the servers are heavy, and what the tests measure should not be each other.
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
  const content = await run(['run', '--project', 'live', '--no-file-parallelism', ...reporters, ...names.flatMap(filesOf)]);
  const before = failed;
  try {
    const report = JSON.parse(await readFile(file, 'utf8')) as {
      numPassedTests: number;
      numFailedTests: number;
      numPendingTests: number;
      testResults: { status: string; assertionResults: unknown[] }[];
    };
    passed += report.numPassedTests;
    failed += report.numFailedTests + report.numPendingTests;
    // A file that could not be loaded has no test that could fail.
    failed += report.testResults.filter((result) => result.status === 'failed' && result.assertionResults.length === 0).length;
    if (report.numPendingTests > 0) console.error(`live: ${report.numPendingTests} tests did not run`);
  } catch (error) {
    console.error(`live: the tests gave no report: ${(error as Error).message}`);
  }
  // Something outside any one test: a leak found at the end, an unhandled rejection, no report.
  if (!content && failed === before) failed += 1;
  await rm(folder, { recursive: true, force: true });
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
