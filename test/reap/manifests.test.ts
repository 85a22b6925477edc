/** What `deploy/reaper/` ships is what the command takes: the unit's and the CronJobs' arguments, the example's targets, and the times between rounds that docs/providers.md rests on. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { reapCommand } from '../../src/reap/reap.ts';

const run = promisify(execFile);
const read = (file: string): Promise<string> => readFile(`deploy/${file}`, 'utf8');
const settingOf = (unit: string, key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1];

/** Runs the real command with the shipped arguments on a file that is not there: it must get as far as reading it. */
async function takes(args: readonly string[]): Promise<void> {
  const file = args[args.indexOf('--targets') + 1] ?? '';
  const result = await run(process.execPath, ['bin/halligan.js', ...args], { timeout: 20_000 }).catch((error: { code: number; stderr: string }) => error);
  expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining(`halligan reap: ${file}: ENOENT`) });
}

interface CronJob {
  kind: string;
  spec: {
    schedule: string;
    concurrencyPolicy: string;
    jobTemplate: { spec: { activeDeadlineSeconds: number; template: { spec: { containers: { command: string[] }[] } } } };
  };
}

test.each(['reaper/cronjob.yaml', 'kubernetes/reaper.yaml'])('deploy/%s: one round a minute, one at a time, over before the next', async (file) => {
  const [job] = parseAllDocuments(await read(file))
    .map((document) => document.toJS() as CronJob)
    .filter(({ kind }) => kind === 'CronJob');
  expect(job?.spec).toMatchObject({ schedule: '* * * * *', concurrencyPolicy: 'Forbid', jobTemplate: { spec: { activeDeadlineSeconds: 55 } } });
  const [command, ...args] = job?.spec.jobTemplate.spec.template.spec.containers[0]?.command ?? [];
  expect(command).toBe('halligan');
  await takes(args);
});

test('the systemd units: a round begins every 30 seconds and is over within a minute; systemd finds nothing wrong with them', async () => {
  const [service, timer] = [await read('reaper/halligan-reaper.service'), await read('reaper/halligan-reaper.timer')];
  expect(settingOf(timer, 'OnUnitActiveSec')).toBe('30');
  expect(Number(settingOf(service, 'TimeoutStartSec'))).toBeLessThan(60);
  const [command, ...args] = (settingOf(service, 'ExecStart') ?? '').split(' ');
  expect(command).toBe('/usr/local/bin/halligan');
  await takes(args);
  const there = await run('systemd-analyze', ['--version']).then(
    () => true,
    () => false,
  );
  if (!there) {
    console.log('not asked of systemd: systemd-analyze is not on this machine');
    return;
  }
  const folder = await mkdtemp(join(tmpdir(), 'halligan-units-'));
  try {
    // The command is not installed here; any that is there will do.
    await writeFile(join(folder, 'halligan-reaper.service'), service.replace('/usr/local/bin/halligan', process.execPath));
    await writeFile(join(folder, 'halligan-reaper.timer'), timer);
    const said = await run('systemd-analyze', ['verify', '--man=no', join(folder, 'halligan-reaper.timer'), join(folder, 'halligan-reaper.service')]);
    expect(said.stdout + said.stderr).toBe('');
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('the example of a file of targets is taken as it stands, but for its password', async () => {
  const lines: string[] = [];
  expect(await reapCommand({ targets: 'deploy/reaper/targets.example.yaml', once: true, say: (line) => void lines.push(line) })).toBe(1);
  expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
    expect.objectContaining({ target: 'orders-db', kind: 'postgres', faults: [expect.stringContaining('/etc/halligan-reaper/orders-db.password')] }),
  ]);
});
