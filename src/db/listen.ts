/** Hears what other transactions announce with NOTIFY, on a connection of its own that comes back by itself. Only for promptness: nothing depends on it. */
import pg from 'pg';

export interface Listener {
  close(): Promise<void>;
}

interface Options {
  readonly connect: () => pg.ClientConfig;
  readonly channel: string;
  readonly onMessage: (payload: string) => void;
  /** After each connection, also the first: something may have been missed. */
  readonly onConnected: () => void;
  readonly onError: (error: Error) => void;
}

/** Starts listening; connects again 1 s after a loss, for as long as it is not closed. */
export function listen(options: Options): Listener {
  let client: pg.Client | undefined;
  let closed = false;
  let retry: NodeJS.Timeout | undefined;

  const again = (error?: Error): void => {
    if (error) options.onError(error);
    const lost = client;
    client = undefined;
    void lost?.end().catch(() => undefined);
    if (!closed) {
      clearTimeout(retry);
      retry = setTimeout(() => void open(), 1_000);
    }
  };
  const open = async (): Promise<void> => {
    const fresh = new pg.Client({ ...options.connect(), connectionTimeoutMillis: 5_000, keepAlive: true });
    client = fresh;
    fresh.on('error', (error) => client === fresh && again(error));
    fresh.on('end', () => client === fresh && again());
    fresh.on('notification', (message) => options.onMessage(message.payload ?? ''));
    try {
      await fresh.connect();
      await fresh.query(`LISTEN ${pg.escapeIdentifier(options.channel)}`);
      options.onConnected();
    } catch (error) {
      if (client === fresh) again(error as Error);
    }
  };
  void open();
  return {
    async close() {
      closed = true;
      clearTimeout(retry);
      const open = client;
      client = undefined;
      await open?.end().catch(() => undefined);
    },
  };
}
