/**
 * Logins on a PostgreSQL server (14 or newer), without anything else in between. A lease is a role of its own, a member
 * of the entitlement's group role, with `VALID UNTIL` the grant's end: the server itself refuses it afterwards. The
 * password is made here and only its SCRAM verifier is sent. Ending is in `postgres/revoke.ts`.
 */
import type pg from 'pg';
import { z } from 'zod';
import { failpoint } from '../domain/failpoint.ts';
import { type Inspected, type Issued, type LeaseRef, type LeaseSpec, type Limits, type Provider, ProviderError, type Target } from '../domain/provider.ts';
import { checkTarget } from './postgres/check.ts';
import { describeRole } from './postgres/describe.ts';
import { mustBeGivable } from './postgres/group.ts';
import { makerFor, prepareMaker, standing } from './postgres/makers.ts';
import { commentOf, isOurs, leaseIn, markerOf, readRole, sessionsOf } from './postgres/marker.ts';
import { ender } from './postgres/revoke.ts';
import { newPassword, scramVerifier } from './postgres/scram.ts';
import { postgresSetup } from './postgres/setup.ts';
import {
  againWhenConcurrent,
  type Door,
  gate,
  lockLease,
  openDoor,
  quoteName,
  quoteText,
  sqlOf,
  type TargetConfig,
  targetSchema,
  transaction,
} from './postgres/sql.ts';

const grantSchema = z.strictObject({ role: z.string().min(1).max(63).describe('the group role whose member the login becomes') });
type Grant = z.infer<typeof grantSchema>;

/**
 * See docs/providers.md, which says how each was measured. A login begun after the end is refused at once; but PostgreSQL
 * judges VALID UNTIL when the exchange of a login begins, so one that was begun before the end and held back may be
 * finished as long as `authentication_timeout` (60 s unless changed) lasts. NOLOGIN, which Halligan sets, stops that too.
 * PostgreSQL never ends an open session by itself; the reaper does in its next round, and a round takes less than a minute.
 */
const limitsOf = ({ reaper }: TargetConfig): Limits => ({
  newLogin: { alive: 1, dead: 60 },
  openSession: { alive: 1, dead: reaper === false ? null : (reaper === true ? 60 : reaper) + 60 },
});

export const postgres: Provider = {
  kind: 'postgres',
  endsAtOnce: 32,
  prints: { 'postgres-setup': postgresSetup },
  targetSchema,
  grantSchema,
  grantInWords: (grant) => `role ${(grant as Grant).role}`,
  connect(name, given, options): Target {
    const config = given as TargetConfig;
    const door = openDoor(name, config, options);
    // People's calls share a few sessions, so that however many ask at once, ending access never waits behind them.
    const asked = gate(4);
    return {
      name,
      kind: 'postgres',
      limits: limitsOf(config),
      check: (grants, signal) =>
        checkTarget(
          door,
          grants.map((grant) => (grant as Grant).role),
          signal,
        ),
      describe: (grant, signal) =>
        asked(signal, name, () => door.run(signal, 'reading what the role opens', (client) => describe(client, door, grant as Grant))),
      issue: (spec, signal) => asked(signal, name, () => issue(door, spec, makerFor(config.user, config.makers, spec.externalName), signal)),
      inspect: (ref, signal) => door.run(signal, 'looking at a login', (client) => inspect(client, ref)),
      ...ender(door),
      sweep: (signal) => door.run(signal, 'looking for logins', sweep),
      close: () => door.close(),
    };
  },
};

async function describe(client: pg.ClientBase, door: Door, { role }: Grant): ReturnType<Target['describe']> {
  await mustBeGivable(client, door.name, role, door.config.leftoversRole);
  return describeRole(client, role, door.config.database);
}

/** One transaction: the whole login, with its end and our marker, or nothing. Under a name that is already this lease's, the new password replaces the old one. */
async function issue(door: Door, spec: LeaseSpec, maker: string | null, signal: AbortSignal): Promise<Issued> {
  const { config } = door;
  const password = newPassword();
  const verifier = scramVerifier(password);
  let certain = true;
  const make = (client: pg.ClientBase) =>
    transaction(
      client,
      () =>
        makeRole(client, door, spec, maker, verifier, () => {
          certain = false;
        }),
      () => {
        certain = false;
      },
    );
  try {
    const expiresAt = await againWhenConcurrent(() => door.run(signal, 'making a login', make));
    return {
      handle: spec.externalName,
      expiresAt,
      connection: { host: config.host, port: String(config.port), database: config.database, user: spec.externalName, sslmode: config.tls },
      secret: { password },
    };
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    throw new ProviderError(error.code as ConstructorParameters<typeof ProviderError>[0], error.message, { ...nextFor(error, door), nothingMade: certain });
  }
}

/** A plain refusal of rights while making a role has one usual reason; the check names every other. */
function nextFor(error: ProviderError, door: Door): { next?: string } {
  if (sqlOf(error).code === '42501' && /create role/i.test(sqlOf(error).message))
    return { next: `As a superuser there: ALTER ROLE ${quoteName(door.config.user)} CREATEROLE;` };
  return error.next === undefined ? {} : { next: error.next };
}

async function makeRole(
  client: pg.ClientBase,
  door: Door,
  spec: LeaseSpec,
  wanted: string | null,
  verifier: Promise<string>,
  alreadyThere: () => void,
): Promise<Date> {
  const { role: group } = spec.grant as Grant;
  await lockLease(client, spec.externalName);
  const found = await readRole(client, spec.externalName);
  if (found) alreadyThere();
  await mustBeGivable(client, door.name, group, door.config.leftoversRole);
  const { now, modern, maker } = await standing(client, wanted, group);
  if (now >= spec.endsAt) throw new ProviderError('target_failed', `${door.name}: by the target's clock (${now.toISOString()}) the grant is already over.`);
  const name = quoteName(spec.externalName);
  const what = `CONNECTION LIMIT ${door.config.connectionLimit} VALID UNTIL ${quoteText(spec.endsAt.toISOString())} PASSWORD ${quoteText(await verifier)}`;
  if (found) {
    if (!isOurs(spec, found)) throw new ProviderError('target_forbids', `${door.name} already has a role ${spec.externalName} that is not this lease's.`);
    if (!found.canLogin) throw new ProviderError('target_failed', `${door.name}: the login ${spec.externalName} is already being ended.`);
    await client.query(`ALTER ROLE ${name} ${what}`);
  } else {
    if (maker) await prepareMaker(client, door, maker, group);
    // The comment before the membership: a change of memberships makes the server forget what it knew of every role that is ours.
    // Without SET the holder cannot become the group role, so whatever is made belongs to the login and is found when it ends.
    const membership = `GRANT ${quoteName(group)} TO ${name}${modern ? ' WITH INHERIT TRUE, SET FALSE, ADMIN FALSE' : ''}`;
    await client.query(
      `${maker ? `SET LOCAL ROLE ${quoteName(maker.name)}; ` : ''}CREATE ROLE ${name} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS ${what}; COMMENT ON ROLE ${name} IS ${quoteText(markerOf(spec))}; ${membership}`,
    );
  }
  const made = await readRole(client, spec.externalName);
  if (!made?.validUntil) throw new ProviderError('target_failed', `${door.name} gave back a login without an end.`);
  await failpoint('postgres.made');
  return made.validUntil;
}

/** A role under the name counts even without our marker: saying `absent` of something that can log in would be worse than a question too many. */
async function inspect(client: pg.ClientBase, ref: LeaseRef): Promise<Inspected> {
  const role = await readRole(client, ref.externalName);
  if (!role) return { state: 'absent' };
  const {
    rows: [clock],
  } = await client.query<{ now: Date }>('SELECT pg_catalog.clock_timestamp() AS now');
  const ended = role.validUntil !== null && clock !== undefined && role.validUntil <= clock.now;
  return { state: 'present', usable: role.canLogin && !ended, expiresAt: role.validUntil, openSessions: (await sessionsOf(client, role.oid)).length };
}

/**
 * Logins belong to the whole server, so this also shows those that were issued through another target of the same server
 * with the same role of ours. Those that another Halligan made with a role of its own are not ours to see (16 and newer).
 */
async function sweep(client: pg.ClientBase): Promise<LeaseRef[]> {
  // The memberships are walked through once, for all of them: pg_has_role would do so for each.
  const { rows } = await client.query<{ name: string; comment: string | null }>(
    `WITH RECURSIVE mine(oid) AS (
       SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user
       UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN mine ON m.member = mine.oid)
     SELECT r.rolname AS name, ${commentOf('r')} AS comment FROM pg_catalog.pg_roles r
      WHERE r.rolname LIKE 'hg\\_%' AND (pg_catalog.current_setting('server_version_num')::int < 160000
          OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
          OR r.oid IN (SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN mine ON m.member = mine.oid WHERE m.admin_option))
      ORDER BY r.rolname`,
  );
  return rows.flatMap(({ name, comment }) => {
    const leaseId = leaseIn(comment ?? '');
    return leaseId === null ? [] : [{ leaseId, externalName: name }];
  });
}
