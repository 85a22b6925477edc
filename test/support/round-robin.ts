/** What stands in front of several servers: each connection goes to the next of them that takes it. It knows no HTTP, as a balancer of TCP does not. */
import { createServer, connect as dial, type Socket } from 'node:net';

export interface RoundRobin {
  readonly port: number;
  close(): Promise<void>;
}

/** Listens on `port` of 127.0.0.1. A backend that refuses a connection is passed over; when none takes it, the caller's is closed. */
export async function roundRobin(port: number, backends: readonly number[]): Promise<RoundRobin> {
  let turn = 0;
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (near) => {
    sockets.add(near);
    near.once('close', () => sockets.delete(near)).on('error', () => near.destroy());
    const first = turn++;
    const attempt = (tried: number): void => {
      const backend = backends[(first + tried) % backends.length];
      if (tried === backends.length || backend === undefined) return void near.destroy();
      const far = dial({ port: backend, host: '127.0.0.1', allowHalfOpen: true });
      const refused = (): void => attempt(tried + 1);
      far.once('error', refused);
      far.once('connect', () => {
        far.off('error', refused).on('error', () => near.destroy());
        near.once('close', () => far.destroy());
        near.pipe(far).pipe(near);
      });
    };
    attempt(0);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}
