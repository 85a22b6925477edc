/** A fault between Halligan and an HTTP target: a proxy in front of the real server that passes calls on, or answers, stalls or breaks in its place. */
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from 'node:http';

export type HttpFault =
  | 'pass'
  /** The connection is closed before anything reaches the server. */
  | 'refuse'
  /** The server does what was asked, and its answer is lost. */
  | 'reset-after-send'
  /** Neither the server nor the caller hears anything. */
  | 'stall'
  /** An answer that the server never gave. */
  | { readonly status: number; readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> };

export interface HttpFaultDouble {
  readonly port: number;
  /** What befalls each call from now on; `path` has no host. */
  set(rule: (call: { method: string; path: string; number: number }) => HttpFault): void;
  /** `method path` of every call since the last `set`. */
  calls(): readonly string[];
  close(): Promise<void>;
}

export async function httpFaultDouble(targetPort: number): Promise<HttpFaultDouble> {
  let rule: (call: { method: string; path: string; number: number }) => HttpFault = () => 'pass';
  let calls: string[] = [];
  const server = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    const [method, path] = [incoming.method ?? 'GET', incoming.url ?? '/'];
    calls.push(`${method} ${path}`);
    const fault = rule({ method, path, number: calls.length });
    if (fault === 'refuse') return void incoming.socket.destroy();
    if (fault === 'stall') return void incoming.resume();
    if (typeof fault === 'object') {
      incoming.resume();
      outgoing.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
      return void outgoing.end(JSON.stringify(fault.body ?? { errors: ['the fault double said so'] }));
    }
    const onward = forward({ host: '127.0.0.1', port: targetPort, method, path, headers: { ...incoming.headers, connection: 'close' } }, (answer) => {
      if (fault === 'reset-after-send') {
        answer.resume();
        answer.on('end', () => incoming.socket.resetAndDestroy());
        return;
      }
      const { connection: _, 'transfer-encoding': __, ...headers } = answer.headers;
      outgoing.writeHead(answer.statusCode ?? 502, headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => incoming.socket.destroy());
    // A caller that gives up is felt by the server as well, as it would be without us.
    outgoing.on('close', () => onward.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    set(next) {
      rule = next;
      calls = [];
    },
    calls: () => calls,
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}
