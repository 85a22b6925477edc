/** `halligan login`, `logout`, `whoami`. */
import { parseDuration } from '../../domain/duration.ts';
import { isRefusal } from '../../domain/errors.ts';
import { clientOf, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, usage } from '../fault.ts';
import { logInBy } from '../login-again.ts';
import { currentSession, type LoginWay, readSession, serverOf, sessionFile, writeSession } from '../session.ts';
import { formatOf, put, putData, say, type Terminal } from '../terminal.ts';
import { line } from '../text.ts';
import { clock, listed } from '../words.ts';

export interface LoginOptions {
  readonly server?: string;
  readonly device?: boolean;
  /** False for `--no-browser`: print the address, open nothing. */
  readonly browser: boolean;
  /** The login must rest on a proof at most this old: `5m`. */
  readonly maxAge?: string;
  /** The class of proof that the identity provider must name. */
  readonly acr?: string;
}

export async function login(terminal: Terminal, options: LoginOptions): Promise<number> {
  const { env } = terminal;
  if (env['HALLIGAN_TOKEN']) throw usage('HALLIGAN_TOKEN is set and would be used instead of a new login.', 'unset HALLIGAN_TOKEN');
  const server = await serverOf(env, options.server);
  const overSsh = Boolean(env['SSH_CONNECTION']) && !env['DISPLAY'] && !env['WAYLAND_DISPLAY'];
  const device = options.device || (overSsh && options.browser);
  if (overSsh && device && !options.device) {
    say(
      terminal,
      'This is an SSH session without a display, so the login goes by code. Such a login may ask and claim, but not decide; halligan login --no-browser is the other way, with its port forwarded.',
    );
  }
  const way: LoginWay = device ? 'device' : options.browser ? 'browser' : 'address';
  const need = {
    ...(options.maxAge === undefined ? {} : { maxAgeSeconds: parseDuration(options.maxAge) }),
    ...(options.acr === undefined ? {} : { acrValues: [options.acr] }),
  };
  const made = await logInBy(terminal, server, way, need);
  await writeSession(env, { server, token: made.token, expiresAt: made.expiresAt, name: made.person.name, way });
  say(terminal, `Logged in at ${server} as ${line(made.person.name)} until ${clock(made.expiresAt, new Date())} UTC.`);
  if (device) say(terminal, 'A login by code may ask and claim, but not decide.');
  say(terminal, 'next: halligan entitlements');
  return exit.ok;
}

export async function logout(terminal: Terminal, options: { everywhere?: boolean }): Promise<number> {
  const { env } = terminal;
  const session = await currentSession(env, new Date(0));
  const client = clientOf(session.server, session.token, terminal.interrupted);
  let failure: unknown;
  try {
    const { ended } = await client.delete<{ ended: number }>(options.everywhere ? '/me/logins' : '/me/login');
    say(
      terminal,
      options.everywhere ? `Logged out everywhere: ${ended} ${ended === 1 ? 'login was' : 'logins were'} ended.` : `Logged out of ${session.server}.`,
    );
  } catch (error) {
    if (isRefusal(error, 'not_logged_in', 'session_over')) say(terminal, 'The login had already ended.');
    else failure = error;
  }
  if (!env['HALLIGAN_TOKEN'] && (await readSession(env))) await writeSession(env, { server: session.server, token: undefined });
  if (failure === undefined) return exit.ok;
  const why = failure instanceof Error ? failure.message : String(failure);
  throw new CliFault(
    `The token was deleted here, but the server was not told, so it stays valid${session.expiresAt ? ` until ${session.expiresAt}` : ''}: ${why}`,
    {
      next: `End it at ${session.server}/logins`,
    },
  );
}

interface Me {
  readonly id: string;
  readonly name: string;
  readonly subject: string;
  readonly groups: readonly string[];
  readonly via: string;
  readonly login: string;
  readonly readsEverything: boolean;
}

export async function whoami(terminal: Terminal, options: { output?: string }): Promise<number> {
  const format = formatOf(options.output);
  const client = await connect(terminal);
  const me = await client.get<Me>('/me');
  const { expiresAt } = await currentSession(terminal.env);
  const { login: loginId, ...shown } = me;
  if (format !== 'table') await putData(terminal, format, { ...shown, login: loginId, server: client.server, expiresAt: expiresAt ?? null });
  else {
    put(
      terminal,
      `${line(me.name)} (${line(me.subject)}), ${me.groups.length > 0 ? `member of ${listed(me.groups.map(line))}` : 'in no group'}`,
      `at ${client.server}, logged in by ${me.via === 'device' ? 'code: may ask and claim, but not decide' : 'browser'}${expiresAt ? `, until ${clock(expiresAt, new Date())} UTC` : ''}`,
    );
    if (me.readsEverything) put(terminal, 'reads the whole audit log');
    if (!terminal.env['HALLIGAN_TOKEN']) say(terminal, `The login is kept in ${sessionFile(terminal.env)}.`);
  }
  return exit.ok;
}
