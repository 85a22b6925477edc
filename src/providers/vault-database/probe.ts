/** A look into the database itself, past Vault: whether a user is gone there, and the end of sessions that outlived it. PostgreSQL only. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import { type Door, gate, openDoor } from '../postgres/sql.ts';
import type { VaultConfig } from './config.ts';

export interface FoundUser {
  readonly oid: number;
  readonly sessions: number;
  /** Whether a new login would be let in, by the database's own clock. */
  readonly canLogin: boolean;
}

export interface Cut {
  readonly at: Date;
  readonly sessions: number;
}

export interface Probe {
  /** For what people ask: fewer at once, so that ending access never waits behind them. */
  readonly door: Pick<Door, 'run'>;
  readonly database: string;
  /** The user as it stands in the database, or null. */
  find(username: string, signal: AbortSignal): Promise<FoundUser | null>;
  /** The names of users that are this lease's: named so, or with its number in their name. */
  usersOf(leaseId: string, name: string | null, signal: AbortSignal): Promise<string[]>;
  /** Ends every session of this user's number until two looks in a row find none. Also works when the user itself is gone. */
  cut(oid: number, signal: AbortSignal): Promise<Cut>;
  close(): Promise<void>;
}

/** Null when the config names no probe. Opens nothing yet. */
export function openProbe(name: string, config: VaultConfig, options: TargetOptions): Probe | null {
  const { probe } = config;
  if (!probe) return null;
  const opened = openDoor(
    `${name} (probe)`,
    {
      host: probe.host ?? config.host,
      port: probe.port ?? config.port,
      database: probe.database ?? config.database,
      user: probe.user,
      passwordFile: probe.passwordFile,
      passwordEnv: probe.passwordEnv,
      tls: probe.tls ?? config.tls,
      tlsCaFile: probe.tlsCaFile,
      allowPlaintext: config.allowPlaintext,
      leftoversRole: 'halligan_leftovers',
      connectionLimit: 1,
    },
    options,
  );
  // However many leases end at once, the database has other things to do: docs/providers.md limits the login's connections.
  const [all, asked] = [gate(6), gate(2)];
  const door: Pick<Door, 'run'> = { run: (signal, ...rest) => all(signal, name, () => opened.run(signal, ...rest)) };
  return {
    database: opened.config.database,
    door: { run: (signal, ...rest) => asked(signal, name, () => opened.run(signal, ...rest)) },
    find: (username, signal) =>
      door.run(signal, 'looking for a user', async (client) => {
        const { rows } = await client.query<{ oid: string; sessions: string; can: boolean }>(
          `SELECT r.oid::pg_catalog.int8 AS oid, r.rolcanlogin AND coalesce(r.rolvaliduntil > pg_catalog.clock_timestamp(), true) AS can,
                  (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) AS sessions
             FROM pg_catalog.pg_roles r WHERE r.rolname = $1`,
          [username],
        );
        const [row] = rows;
        return row ? { oid: Number(row.oid), sessions: Number(row.sessions), canLogin: row.can } : null;
      }),
    usersOf: (leaseId, name, signal) =>
      door.run(signal, 'looking for users', async (client) => {
        const number = leaseId.replace(/^lse_/, '');
        const { rows } = await client.query<{ name: string }>(
          'SELECT rolname AS name FROM pg_catalog.pg_roles WHERE rolname = $1 OR pg_catalog.strpos(rolname, $2) > 0',
          [name, number],
        );
        return rows.map((row) => row.name);
      }),
    cut: (oid, signal) => door.run(signal, 'ending sessions', (client) => cutSessions(client, name, oid)),
    close: () => opened.close(),
  };
}

async function cutSessions(client: Parameters<Parameters<Door['run']>[2]>[0], name: string, oid: number): Promise<Cut> {
  const ended = new Set<number>();
  let at: Date | null = null;
  for (const deadline = Date.now() + 6_000; Date.now() < deadline; ) {
    const { rows } = await client.query<{ now: Date; pid: number | null }>(
      `SELECT pg_catalog.clock_timestamp() AS now, a.pid, pg_catalog.pg_terminate_backend(a.pid)
         FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_stat_activity a ON a.usesysid = $1`,
      [oid],
    );
    for (const { pid } of rows) if (pid !== null) ended.add(pid);
    const none = rows.every((row) => row.pid === null);
    if (none && at) return { at, sessions: ended.size };
    at = none ? (rows[0]?.now ?? null) : null;
    await sleep(none ? 30 : 10);
  }
  throw new ProviderError('target_timeout', `${name}: sessions are still open although they were told to end.`, { next: 'Look at pg_stat_activity there.' });
}
