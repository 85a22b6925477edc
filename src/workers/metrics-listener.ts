/** Where Prometheus scrapes and probes ask: a listener of its own, beside the web and without its logins. Every process may have one, also one that only works. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Metrics } from './metrics.ts';

export interface MetricsListenerParts {
  readonly metrics: Metrics;
  readonly health: () => Promise<{ readonly ready: boolean; readonly faults: readonly object[]; readonly warnings: readonly object[] }>;
  /** `host:port`. */
  readonly listen: string;
  readonly log: Logger;
}

export interface MetricsListener {
  /** What is wrong with it, in words; null when it listens. */
  trouble(): string | null;
  close(): Promise<void>;
}

const againMs = 10_000;

/**
 * Opens it. A port that is taken stops nobody from working: it is said in the log and in the process' health, and tried again
 * every ten seconds. Resolves when it listens or has failed for the first time.
 */
export async function openMetricsListener({ metrics, health, listen, log }: MetricsListenerParts): Promise<MetricsListener> {
  const colon = listen.lastIndexOf(':');
  const [host, port] = [listen.slice(0, colon).replace(/^\[|\]$/g, ''), Number(listen.slice(colon + 1))];
  let trouble: string | null = null;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000, keepAliveTimeout: 5_000, maxHeaderSize: 8_192 }, (request, response) => {
    void answer({ metrics, health }, request, response).catch((error: unknown) => {
      log.warn({ code: 'metrics_failed', why: error instanceof Error ? error.message : String(error) }, 'a scrape could not be answered');
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  const open = async (): Promise<void> => {
    try {
      await listening(server, port, host);
      trouble = null;
      log.info({ code: 'metrics_listening', listen }, `metrics are at http://${listen}/metrics`);
    } catch (error) {
      if (closed) return;
      const { code } = error as NodeJS.ErrnoException;
      const why = code === 'EADDRINUSE' ? 'is taken by another process' : `cannot be listened on (${code ?? 'unknown'})`;
      const words = `${listen} ${why}, so this process has no metrics. Set metrics.listen, or give one of the two its own: --metrics host:port.`;
      if (trouble === null) log.error({ code: 'metrics_unavailable', listen }, words);
      trouble = words;
      timer = setTimeout(() => void open(), againMs);
    }
  };
  await open();
  return {
    trouble: () => trouble,
    async close() {
      closed = true;
      clearTimeout(timer);
      if (!server.listening) return;
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

const listening = (server: Server, port: number, host: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      server.off('listening', done);
      reject(error);
    };
    const done = (): void => {
      server.off('error', failed);
      resolve();
    };
    server.once('error', failed).once('listening', done).listen(port, host);
  });

async function answer(
  { metrics, health }: Pick<MetricsListenerParts, 'metrics' | 'health'>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  request.resume();
  const path = (request.url ?? '').split('?')[0];
  const send = (status: number, type: string, text: string): void => {
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    response.end(request.method === 'HEAD' ? undefined : text);
  };
  if (path !== '/metrics' && path !== '/livez' && path !== '/readyz') return send(404, 'text/plain', 'Here are /metrics, /livez and /readyz.\n');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    return send(405, 'text/plain', `${path} is only read.\n`);
  }
  if (path === '/metrics') return send(200, metrics.contentType, await metrics.scrape());
  if (path === '/livez') return send(200, 'application/json', '{"status":"alive"}');
  const { ready, faults, warnings } = await health();
  send(ready ? 200 : 503, 'application/json', JSON.stringify({ status: ready ? 'ready' : 'not ready', faults, warnings }));
}
