/** The client that commands call the server with: with this terminal's login, which is renewed where a call needs a fresher one. */
import { type Client, clientOf } from './calls.ts';
import { currentSession } from './session.ts';
import type { Terminal } from './terminal.ts';

export { type CallOptions, type Client, clientOf } from './calls.ts';

/** A client with the terminal's login, which is renewed where a call needs a fresher one. Throws with exit code 4 when there is none. */
export async function connect(terminal: Terminal): Promise<Client> {
  const session = await currentSession(terminal.env);
  const { server, token } = session;
  return clientOf(server, token, terminal.interrupted, async (refusal) => (await import('./login-again.ts')).logInAgain(terminal, session, refusal));
}
