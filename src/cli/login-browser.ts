/** Login by the browser on this machine (RFC 8252): a loopback port takes the answer, PKCE S256 (RFC 7636) and a state bind it to us. */
import { spawn } from 'node:child_process';
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { LoginNeed } from '../domain/errors.ts';
import { clientOf } from './calls.ts';
import { exit } from './exit-codes.ts';
import { CliFault } from './fault.ts';
import { needParameters } from './login-need.ts';
import { Interrupted, say, type Terminal } from './terminal.ts';
import type { WireLogin } from './wire.ts';

const patienceMs = 5 * 60_000;

/** Logs in through the browser. Rejects with exit code 4 when the person says no or five minutes pass, with `Interrupted` on Ctrl-C. */
export async function loginByBrowser(terminal: Terminal, server: string, options: { label: string; open: boolean; need?: LoginNeed }): Promise<WireLogin> {
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(24).toString('base64url');
  const listener = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(0, '127.0.0.1', resolve);
  });
  try {
    const redirectUri = `http://127.0.0.1:${(listener.address() as AddressInfo).port}/callback`;
    const url = new URL('/login/cli', server);
    url.search = new URLSearchParams({
      redirect_uri: redirectUri,
      state,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      label: options.label,
      ...Object.fromEntries(Object.entries(needParameters(options.need ?? {})).map(([name, value]) => [name, String(value)])),
    }).toString();
    const opened = options.open && openBrowser(terminal, url.href);
    say(
      terminal,
      opened
        ? `Your browser opens to log you in. If it does not, open this address on this machine:\n  ${url.href}`
        : `Open this address in a browser on this machine to log in:\n  ${url.href}`,
    );
    const code = await awaitCode(terminal, listener, state, redirectUri);
    return await clientOf(server, undefined, terminal.interrupted).post<WireLogin>('/login/token', {
      code,
      code_verifier: verifier,
      redirect_uri: redirectUri,
    });
  } finally {
    listener.close();
    listener.closeAllConnections();
  }
}

function awaitCode(terminal: Terminal, listener: Server, state: string, redirectUri: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(new Interrupted());
    const timer = setTimeout(
      () =>
        reject(
          new CliFault('Nobody finished the login in the browser within 5 minutes.', {
            exitCode: exit.notLoggedIn,
            next: 'halligan login, or halligan login --device',
          }),
        ),
      patienceMs,
    );
    const done = (settle: () => void): void => {
      clearTimeout(timer);
      terminal.interrupted.removeEventListener('abort', stop);
      settle();
    };
    terminal.interrupted.addEventListener('abort', stop, { once: true });
    listener.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const answer = readAnswer(request, state, redirectUri);
      // Anything on this machine can knock at the port: only the answer with our state counts, the rest is turned away.
      if (answer === undefined) return page(response, 400, 'This is not the answer that the terminal waits for.');
      if ('code' in answer) {
        page(response, 200, 'You are logged in in the terminal. You can close this window.');
        return response.once('close', () => done(() => resolve(answer.code)));
      }
      page(response, 200, 'The terminal was not logged in. You can close this window.');
      response.once('close', () =>
        done(() => reject(new CliFault('You said no in the browser: the terminal is not logged in.', { exitCode: exit.notLoggedIn, next: 'halligan login' }))),
      );
    });
  });
}

function readAnswer(request: IncomingMessage, state: string, redirectUri: string): { code: string } | { error: string } | undefined {
  const here = new URL(redirectUri);
  if (request.method !== 'GET' || request.headers.host !== here.host || !URL.canParse(request.url ?? '', here.origin)) return undefined;
  const url = new URL(request.url ?? '', here.origin);
  if (url.pathname !== here.pathname || !same(url.searchParams.get('state') ?? '', state)) return undefined;
  const code = url.searchParams.get('code');
  return code ? { code } : { error: url.searchParams.get('error') ?? 'unknown' };
}

const same = (a: string, b: string): boolean => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));

function page(response: ServerResponse, status: number, words: string): void {
  response.writeHead(status, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': "default-src 'none'",
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    connection: 'close',
  });
  response.end(
    `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Halligan</title><p>${words}</p></html>\n`,
  );
}

/** Starts the desktop's browser; false when there is no desktop to speak of. What becomes of it is not our concern: the address is printed too. */
function openBrowser(terminal: Terminal, url: string): boolean {
  const { env } = terminal;
  if (process.platform === 'linux' && !env['DISPLAY'] && !env['WAYLAND_DISPLAY']) return false;
  const [command, ...args] =
    process.platform === 'darwin' ? ['open'] : process.platform === 'win32' ? ['rundll32', 'url.dll,FileProtocolHandler'] : ['xdg-open'];
  try {
    const child = spawn(command ?? 'xdg-open', [...args, url], { detached: true, stdio: 'ignore' });
    child.once('error', () => undefined);
    child.unref();
    return true;
  } catch {
    return false;
  }
}
