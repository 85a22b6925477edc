/** moto beside the test: the shape of STS and IAM, on a free port of loopback. It validates little and enforces nothing, so its yes proves only that a call has the right form. */
import { join, resolve } from 'node:path';
import { awaitReady, type Child, freePort, installed, runTool, startChild } from './install.ts';

export interface Moto {
  readonly url: string;
  readonly child: Child;
  stop(): Promise<void>;
}

/** Installs it once, by pip, each package in the version that is written down. */
async function install(): Promise<string> {
  return installed('moto-5.2.5', async (making) => {
    await runTool('python3', ['-m', 'venv', join(making, 'venv')]);
    const pip = [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      '--target',
      join(making, 'lib'),
      '-r',
      resolve('test/live/tools/moto.txt'),
    ];
    await runTool(join(making, 'venv', 'bin', 'python'), pip);
  });
}

/** Starts a server of our own, and makes sure that it is ours: nothing else knows the account that it is asked about. */
export async function startMoto(account: string): Promise<Moto> {
  const folder = await install();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = { PATH: process.env['PATH'], HOME: folder, PYTHONPATH: join(folder, 'lib'), PYTHONDONTWRITEBYTECODE: '1', MOTO_ACCOUNT_ID: account };
  const child = startChild('python3', ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)], env);
  await awaitReady(child, 'moto', 60, async () => {
    const answer = await fetch(`${url}/`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/x-www-form-urlencoded',
        Authorization: 'AWS4-HMAC-SHA256 Credential=AKIAREADY/20260101/us-east-1/sts/aws4_request',
      },
      body: 'Action=GetCallerIdentity&Version=2011-06-15',
      signal: AbortSignal.timeout(5_000),
    });
    return answer.ok && (await answer.text()).includes(account);
  });
  return { url, child, stop: () => child.stop() };
}
