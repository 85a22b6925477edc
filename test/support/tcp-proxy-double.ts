/** A fault between Halligan and a target: a proxy that passes bytes on, or refuses, resets or swallows them. Behind it is the real server. */
import { createServer, connect as dial, type Socket } from 'node:net';

export type ProxyMode = 'pass' | 'refuse' | 'reset' | 'hang';

export interface TcpProxyDouble {
  readonly port: number;
  /** From now on; open connections feel it too. */
  set(mode: ProxyMode): void;
  close(): Promise<void>;
}

export async function tcpProxyDouble(targetPort: number): Promise<TcpProxyDouble> {
  let mode: ProxyMode = 'pass';
  const pairs = new Set<{ near: Socket; far: Socket | undefined }>();
  const drop = (pair: { near: Socket; far: Socket | undefined }): void => {
    pair.near.destroy();
    pair.far?.destroy();
    pairs.delete(pair);
  };
  const server = createServer((near) => {
    near.on('error', () => undefined);
    if (mode === 'refuse') return void near.destroy();
    if (mode === 'reset') return void near.resetAndDestroy();
    const far = mode === 'hang' ? undefined : dial(targetPort, '127.0.0.1');
    const pair = { near, far };
    pairs.add(pair);
    near.on('close', () => drop(pair));
    near.on('data', (chunk) => mode === 'pass' && far?.write(chunk));
    far?.on('error', () => drop(pair));
    far?.on('close', () => drop(pair));
    far?.on('data', (chunk) => mode === 'pass' && near.write(chunk));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    set(next) {
      mode = next;
      if (next === 'hang') return;
      for (const pair of [...pairs]) {
        if (next === 'reset') pair.near.resetAndDestroy();
        drop(pair);
      }
    },
    async close() {
      for (const pair of [...pairs]) drop(pair);
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
