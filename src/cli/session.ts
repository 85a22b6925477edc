/**
 * Where a terminal keeps its login: one file, readable by its owner only. `HALLIGAN_SERVER` and `HALLIGAN_TOKEN` stand in
 * for it, as CI jobs do. A token belongs to the server it came from and is never sent to another.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { exit } from './exit-codes.ts';
import { CliFault, usage } from './fault.ts';
import { shellWord } from './text.ts';

/** How a terminal was logged in: by a browser that it opened, by an address that it printed, or by a code. */
export type LoginWay = 'browser' | 'address' | 'device';

export interface Session {
  /** The server's origin. */
  readonly server: string;
  readonly token: string | undefined;
  readonly expiresAt?: string | undefined;
  readonly name?: string | undefined;
  readonly way?: LoginWay | undefined;
}

/** `$HALLIGAN_HOME`, or `halligan` in the XDG configuration folder. */
export const homeOf = (env: NodeJS.ProcessEnv): string => env['HALLIGAN_HOME'] || join(env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'halligan');

export const sessionFile = (env: NodeJS.ProcessEnv): string => join(homeOf(env), 'login.json');

const loopback = new Set(['127.0.0.1', 'localhost', '[::1]']);

/** The origin of a server's address. Throws a usage fault unless it is https, or http on this machine. */
export function originOf(text: string): string {
  if (!URL.canParse(text)) throw usage(`${JSON.stringify(text)} is not the address of a server: one looks like https://halligan.example.com.`);
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && loopback.has(url.hostname))) {
    throw usage(`A login would travel in the clear to ${url.host}: the address must start with https://. http is for this machine only.`);
  }
  if (url.username || url.password || url.search || url.hash || url.pathname !== '/') throw usage(`Say only the server's origin: ${url.origin}`);
  return url.origin;
}

/** The login kept in the file; undefined when there is none. Refuses a file that others can read or write. */
export async function readSession(env: NodeJS.ProcessEnv): Promise<Session | undefined> {
  const file = sessionFile(env);
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw new CliFault(`The login file ${file} cannot be read (${error.code}).`, { next: `rm ${shellWord(file)} && halligan login` });
  });
  if (!handle) return undefined;
  try {
    await assertPrivate(file, await handle.stat(), env);
    return parsed(file, await handle.readFile('utf8'));
  } finally {
    await handle.close();
  }
}

async function assertPrivate(file: string, found: { mode: number; uid: number }, env: NodeJS.ProcessEnv): Promise<void> {
  if (process.platform === 'win32') return;
  if (found.uid !== process.geteuid?.())
    throw new CliFault(`The login file ${file} belongs to somebody else, so it is not used.`, { next: `HALLIGAN_HOME names another folder.` });
  if ((found.mode & 0o077) !== 0)
    throw new CliFault(`The login file ${file} can be read or changed by others, so it is not used.`, { next: `chmod 600 ${shellWord(file)}` });
  const folder = homeOf(env);
  if (((await stat(folder)).mode & 0o022) !== 0)
    throw new CliFault(`Others can change files in ${folder}, so the login there is not used.`, { next: `chmod 700 ${shellWord(folder)}` });
}

function parsed(file: string, text: string): Session {
  try {
    const { server, token, expiresAt, name, way } = JSON.parse(text) as Record<string, unknown>;
    const optional = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
    const ways: readonly LoginWay[] = ['browser', 'address', 'device'];
    return {
      server: originOf(String(server)),
      token: optional(token),
      expiresAt: optional(expiresAt),
      name: optional(name),
      way: ways.find((one) => one === way),
    };
  } catch {
    throw new CliFault(`The login file ${file} is damaged.`, { next: `rm ${shellWord(file)} && halligan login` });
  }
}

/** Writes the login file: whole or not at all, for its owner only. */
export async function writeSession(env: NodeJS.ProcessEnv, session: Session): Promise<void> {
  const folder = homeOf(env);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
  const file = sessionFile(env);
  const draft = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    const handle = await open(draft, 'wx', 0o600);
    try {
      await handle.writeFile(`${JSON.stringify(session, null, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/** The server to talk to: `given`, then HALLIGAN_SERVER, then the last login's. */
export async function serverOf(env: NodeJS.ProcessEnv, given?: string): Promise<string> {
  const named = given ?? env['HALLIGAN_SERVER'];
  if (named) return originOf(named);
  const session = await readSession(env);
  if (session) return session.server;
  throw usage('Which server? None is known yet.', 'halligan login --server https://halligan.example.com');
}

/** The login to call with. Throws with exit code 4 when there is none, when it has ended, or when it belongs to another server. */
export async function currentSession(env: NodeJS.ProcessEnv, now = new Date()): Promise<Session & { token: string }> {
  const { HALLIGAN_SERVER: server, HALLIGAN_TOKEN: token } = env;
  if (token) {
    if (!server) throw usage('HALLIGAN_TOKEN is set without HALLIGAN_SERVER: a token is only sent to the server it came from.', 'Set HALLIGAN_SERVER too.');
    if (!/^[\x21-\x7e]+$/.test(token)) throw usage('HALLIGAN_TOKEN holds characters that no token has.');
    return { server: originOf(server), token };
  }
  const session = await readSession(env);
  const wanted = server ? originOf(server) : session?.server;
  const login = wanted ? `halligan login --server ${wanted}` : 'halligan login --server https://halligan.example.com';
  if (!session?.token) throw new CliFault('You are not logged in.', { exitCode: exit.notLoggedIn, next: login });
  if (wanted !== session.server) {
    throw new CliFault(`You are logged in at ${session.server}, and HALLIGAN_SERVER names ${wanted}.`, { exitCode: exit.notLoggedIn, next: login });
  }
  if (session.expiresAt && Date.parse(session.expiresAt) <= now.getTime()) {
    throw new CliFault(`Your login ended at ${session.expiresAt}; one lasts 12 hours at most.`, { exitCode: exit.notLoggedIn, next: 'halligan login' });
  }
  return { ...session, token: session.token };
}
