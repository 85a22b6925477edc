/**
 * `npm test`: type check, lint with import rules, then the tests; ends with the line `N passed, N failed`. The checks count
 * as tests, so that a run with a type error can never look green. `--project e2e` runs that suite alone.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';

const bin = resolve('node_modules/.bin');
const env = { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH']}` };

/** Runs a tool of this checkout on the Node that runs this; resolves with whether it was content. */
const run = (name: string, args: readonly string[]): Promise<boolean> =>
  new Promise((done) => {
    const child = spawn(join(bin, name), args, { stdio: 'inherit', env });
    child.once('error', (error) => {
      console.error(`${name} could not be started: ${error.message}. Run npm install first.`);
      done(false);
    });
    child.once('exit', (code) => done(code === 0));
  });

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly unknown[] }[];
}

const given = process.argv.slice(2);
const projectAt = given.indexOf('--project');
const project = projectAt < 0 ? 'main' : (given[projectAt + 1] ?? 'main');
const rest = given.filter((_, index) => projectAt < 0 || (index !== projectAt && index !== projectAt + 1));
let passed = 0;
let failed = 0;

if (project === 'main' && rest.length === 0) {
  for (const [name, tool, args] of [
    ['type check', 'tsc', []],
    ['type check of the browser tests', 'tsc', ['-p', 'test/e2e']],
    ['lint and import rules', 'biome', ['check', '--error-on-warnings']],
  ] as const) {
    console.log(`\n— ${name}`);
    if (await run(tool, args)) passed++;
    else failed++;
  }
}
console.log('\n— tests');
const folder = await mkdtemp(join(tmpdir(), 'halligan-report-'));
const file = join(folder, 'report.json');
const content = await run('vitest', ['run', '--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...rest]);
try {
  const report = JSON.parse(await readFile(file, 'utf8')) as Report;
  passed += report.numPassedTests;
  failed += report.numFailedTests;
  // A file that could not be loaded has no test that could fail.
  failed += report.testResults.filter((result) => result.status === 'failed' && result.assertionResults.length === 0).length;
  if (report.numPendingTests > 0) console.log(`${report.numPendingTests} tests did not run`);
} catch (error) {
  console.error(`the tests gave no report: ${(error as Error).message}`);
}
// Something outside any one test: a leak found at the end, an unhandled rejection, no report.
if (!content && failed === 0) failed++;
await rm(folder, { recursive: true, force: true });
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
