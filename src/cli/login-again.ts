/**
 * A call that needs a fresher or stronger login (RFC 9470): the person at this terminal logs in once more, in the way in
 * which they did before, the stored login is replaced, and the caller makes the very same call again. Once: a second
 * "no" is the answer.
 */
import { hostname, userInfo } from 'node:os';
import type { LoginNeed, Refusal } from '../domain/errors.ts';
import { clientOf } from './calls.ts';
import { exit } from './exit-codes.ts';
import { CliFault } from './fault.ts';
import { type LoginWay, type Session, writeSession } from './session.ts';
import { canAsk, say, type Terminal } from './terminal.ts';
import { line } from './text.ts';
import type { WireLogin } from './wire.ts';

/** What the server lists a login under: `user@host`. */
export function labelOf(): string {
  let user = 'somebody';
  try {
    user = userInfo().username;
  } catch {
    // A user id without a name, as in some containers.
  }
  return `${user}@${hostname()}`.slice(0, 80);
}

/** Logs in at `server` in this way. `need` is what the login must prove. */
export async function logInBy(terminal: Terminal, server: string, way: LoginWay, need: LoginNeed = {}): Promise<WireLogin> {
  if (way === 'device') return (await import('./login-device.ts')).loginByDevice(terminal, server, labelOf(), need);
  return (await import('./login-browser.ts')).loginByBrowser(terminal, server, { label: labelOf(), open: way === 'browser', need });
}

/**
 * Logs the same person in again and gives the new token. Throws with exit code 4 where nobody is there to do it, where no
 * login would help, and where somebody else logged in; then the stored login stays as it was.
 */
export async function logInAgain(terminal: Terminal, session: Session & { token: string }, refusal: Refusal): Promise<string> {
  const { env } = terminal;
  const need = refusal.login ?? {};
  if ((need.acrValues?.length ?? 0) > 1) throw refusal;
  if (env['HALLIGAN_TOKEN'] || !canAsk(terminal)) {
    const why = env['HALLIGAN_TOKEN'] ? 'The login in HALLIGAN_TOKEN cannot be renewed from here' : 'Nobody is at this terminal to log in again';
    throw new CliFault(`${refusal.message} ${why}, so nothing was done.`, { exitCode: exit.notLoggedIn, next: commandFor(need, env['HALLIGAN_TOKEN']) });
  }
  say(terminal, `${refusal.message} You log in again now; then the same call is made once more, with what you typed.`);
  const earlier = clientOf(session.server, session.token, terminal.interrupted);
  const { id } = await earlier.get<{ id: string }>('/me');
  const made = await logInBy(terminal, session.server, session.way ?? 'browser', need);
  if (made.person.id !== id) {
    await clientOf(session.server, made.token, terminal.interrupted)
      .delete('/me/login')
      .catch(() => undefined);
    throw new CliFault(`You logged in as ${line(made.person.name)}, and the call was somebody else's: it was not made again.`, {
      exitCode: exit.notLoggedIn,
      next: 'Run it again, and log in as yourself.',
    });
  }
  await writeSession(env, { server: session.server, token: made.token, expiresAt: made.expiresAt, name: made.person.name, way: session.way });
  // What it stood for is replaced; a failure leaves it to end by itself.
  await earlier.delete('/me/login').catch(() => undefined);
  return made.token;
}

/** The command that a person runs where they can log in. */
function commandFor({ maxAgeSeconds, acrValues }: LoginNeed, token: string | undefined): string {
  const login = [
    'halligan login',
    ...(maxAgeSeconds === undefined ? [] : [`--max-age ${maxAgeSeconds}s`]),
    ...(acrValues ?? []).map((acr) => `--acr ${acr}`),
  ].join(' ');
  return token ? `unset HALLIGAN_TOKEN, then ${login}, and run it again.` : `${login}, and run it again.`;
}
