/** The statements that prepare a PostgreSQL target with the least rights, for the loaded config. Nothing in them is a secret. */
import type { PrintTarget } from '../../domain/provider.ts';
import { quoteName, type TargetConfig } from './sql.ts';

/** SQL for a superuser of each target's server, in its database. What exists already is for the reader to leave out. */
export const postgresSetup = (targets: readonly PrintTarget[]): string => targets.map(setupOf).join('\n');

function setupOf({ name, config, grants }: PrintTarget): string {
  const { database, user, leftoversRole, makers, reaper } = config as TargetConfig;
  const roles = [...new Set(grants.map(({ grant }) => (grant as { role: string }).role))];
  const own = quoteName(user);
  return [
    `-- ${name}: as a superuser, in the database ${database}`,
    `-- Halligan's own role: it makes logins and gives away membership, and cannot read a row. Set its password with \\password.`,
    ...(makers === 0 ? [] : [`-- From PostgreSQL 16 on it makes ${makers} helper roles ${quoteName(`${user}_maker_0`)} … by itself, when it needs them.`]),
    `CREATE ROLE ${own} LOGIN CREATEROLE;`,
    `GRANT CONNECT ON DATABASE ${quoteName(database)} TO ${own};`,
    ...roles.flatMap((role) => [
      `-- What ${grants
        .filter(({ grant }) => (grant as { role: string }).role === role)
        .map(({ entitlement }) => entitlement)
        .join(', ')} opens. Give this role the rights that people shall have.`,
      `CREATE ROLE ${quoteName(role)} NOLOGIN;`,
      `GRANT CONNECT ON DATABASE ${quoteName(database)} TO ${quoteName(role)};`,
      `GRANT ${quoteName(role)} TO ${own} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;   -- 14 and 15: WITH ADMIN OPTION`,
    ]),
    `-- Only where people may create things: who gets what they leave behind.`,
    `CREATE ROLE ${quoteName(leftoversRole)} NOLOGIN;`,
    `GRANT ${quoteName(leftoversRole)} TO ${own};`,
    ...(reaper === false
      ? []
      : [
          `-- The reaper beside the server (halligan reap): it may cut sessions, and cannot read a row. Set its password too.`,
          `CREATE ROLE halligan_reaper LOGIN;`,
          `GRANT CONNECT ON DATABASE ${quoteName(database)} TO halligan_reaper;`,
          `GRANT pg_signal_backend TO halligan_reaper;`,
        ]),
    '',
  ].join('\n');
}
