/** The sessions of one target that are kept for the next call: connecting costs more than most of what is asked. */
import pg from 'pg';

/** Sessions of the main database are kept for the next call, at most four and ten seconds; those of others are closed at once. */
export function sessionKeeper(settings: (database: string) => Promise<pg.ClientConfig>, mainDatabase: string) {
  const idle: { client: pg.Client; timer: NodeJS.Timeout }[] = [];
  let closed = false;
  const drop = (client: pg.Client) => void client.end().catch(() => undefined);
  return {
    async take(database: string): Promise<pg.Client> {
      const kept = database === mainDatabase ? idle.pop() : undefined;
      if (kept) {
        clearTimeout(kept.timer);
        return kept.client;
      }
      const client = new pg.Client(await settings(database));
      client.on('error', () => {
        const at = idle.findIndex((entry) => entry.client === client);
        if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer);
      });
      try {
        await client.connect();
      } catch (error) {
        drop(client);
        throw error;
      }
      return client;
    },
    give(client: pg.Client, whole: boolean): void {
      client.removeAllListeners('notice');
      if (!whole || closed || idle.length >= 4 || client.database !== mainDatabase) {
        drop(client);
        return;
      }
      const timer = setTimeout(() => {
        idle.splice(
          idle.findIndex((entry) => entry.client === client),
          1,
        );
        drop(client);
      }, 10_000);
      timer.unref();
      idle.push({ client, timer });
    },
    async close(): Promise<void> {
      closed = true;
      for (const { client, timer } of idle.splice(0)) {
        clearTimeout(timer);
        await client.end().catch(() => undefined);
      }
    },
  };
}
