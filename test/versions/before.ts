/** The version before this one, out of the history of this checkout: the newest commit with fewer migrations than are here, or else the parent of HEAD. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const git = async (...args: string[]): Promise<string> => (await run('git', args, { maxBuffer: 64 * 1_048_576, timeout: 30_000 })).stdout;
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

export interface Before {
  readonly commit: string;
  /** Where it lies, with the packages of this checkout. */
  readonly folder: string;
  readonly migrations: readonly string[];
}

async function commitBefore(): Promise<string> {
  const here = (await readdir('migrations')).filter((file) => file.endsWith('.sql')).length;
  for (const commit of lines(await git('log', '--format=%H', '-n', '100')))
    if (lines(await git('ls-tree', '--name-only', commit, 'migrations/')).filter((file) => file.endsWith('.sql')).length < here) return commit;
  return (await git('rev-parse', 'HEAD~1')).trim();
}

/** Lays it out in a new folder below the system's temporary one. Throws in words when the history is not there. */
export async function layOutBefore(): Promise<Before> {
  const commit = await commitBefore().catch((error: Error) => {
    throw new Error(
      `The version before is read from git, and its history is not here (${error.message.split('\n')[0]}). Clone with at least the last 100 commits.`,
    );
  });
  const folder = await mkdtemp(join(tmpdir(), 'halligan-before-'));
  const tar = join(folder, 'before.tar');
  await git('archive', '--output', tar, commit, 'src', 'migrations', 'package.json', 'config');
  const to = join(folder, 'house');
  await mkdir(to);
  await run('tar', ['-xf', tar, '-C', to], { timeout: 30_000 });
  await symlink(resolve('node_modules'), join(to, 'node_modules'));
  return { commit, folder: to, migrations: (await readdir(join(to, 'migrations'))).filter((file) => file.endsWith('.sql')) };
}
