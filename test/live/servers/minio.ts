/** MinIO beside the test: an AssumeRole whose session policy is really enforced on each S3 call, on a free port of loopback. Built from its Go module once. */
import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { awaitReady, type Child, freePort, installed, runTool, startChild } from './install.ts';

export interface Minio {
  readonly url: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly child: Child;
  stop(): Promise<void>;
}

async function install(): Promise<string> {
  const folder = await installed('minio-20260212201848', async (making) => {
    console.log('live: MinIO is fetched and built by Go, which takes about four minutes once');
    for (const file of ['go.mod', 'go.sum']) await copyFile(resolve('test/live/tools/minio', file), join(making, file));
    await runTool('go', ['build', '-trimpath', '-ldflags=-s -w', '-o', join(making, 'minio'), 'github.com/minio/minio'], { cwd: making });
  });
  return join(folder, 'minio');
}

/** Starts a server of our own. Its root keys are random, so whoever accepts them is our child. */
export async function startMinio(): Promise<Minio> {
  const command = await install();
  const data = await mkdtemp(join(tmpdir(), 'halligan-minio-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const [accessKeyId, secretAccessKey] = [`root${randomBytes(6).toString('hex')}`, randomBytes(16).toString('hex')];
  const env = {
    PATH: process.env['PATH'],
    HOME: data,
    MINIO_ROOT_USER: accessKeyId,
    MINIO_ROOT_PASSWORD: secretAccessKey,
    MINIO_BROWSER: 'off',
    MINIO_UPDATE: 'off',
  };
  const child = startChild(command, ['server', '--quiet', '--address', `127.0.0.1:${port}`, join(data, 'data')], env);
  await awaitReady(child, 'MinIO', 60, async () => (await fetch(`${url}/minio/health/ready`, { signal: AbortSignal.timeout(2_000) })).ok);
  return {
    url,
    accessKeyId,
    secretAccessKey,
    child,
    async stop() {
      await child.stop();
      await rm(data, { recursive: true, force: true });
    },
  };
}
