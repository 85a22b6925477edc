/** Ends a server so that nobody is cut off half-way: what is asked is answered, and nobody asks again on the same connection. */
import type { Server, ServerResponse } from 'node:http';
import { Server as Listener } from 'node:net';

/** Whoever has connected and not yet asked is given this long to ask. */
const graceMs = 500;

/** Watches `server` from its start on. The function that it gives ends it: at once where nothing is under way, at the latest after `patienceMs`. */
export function drainer(server: Server): (patienceMs: number) => Promise<void> {
  const open = new Set<ServerResponse>();
  let draining = false;
  let graceOver = false;
  const isStream = (response: ServerResponse): boolean => String(response.getHeader('content-type')).startsWith('text/event-stream');
  server.prependListener('request', (_request, response: ServerResponse) => {
    open.add(response);
    if (draining) response.setHeader('Connection', 'close');
    response.once('close', () => {
      open.delete(response);
      // Its head may have gone out before: the connection would wait for a next request.
      if (graceOver) setImmediate(() => server.closeIdleConnections());
    });
  });
  return (patienceMs) =>
    new Promise<void>((resolve) => {
      draining = true;
      const patience = setTimeout(() => server.closeAllConnections(), patienceMs);
      // Not the server's own: it would close at once what has connected and is about to ask.
      Listener.prototype.close.call(server, () => {
        clearTimeout(patience);
        resolve();
      });
      setTimeout(() => {
        graceOver = true;
        server.closeIdleConnections();
      }, graceMs);
      // A page that follows changes comes back by itself, to another process.
      for (const response of open)
        if (isStream(response)) response.end();
        else if (!response.headersSent) response.setHeader('Connection', 'close');
    });
}
