/** What can be wrong with one role of the secrets engine, and with the tokens and groups that go with it. The making of a token is tried for real and taken back. */
import { z } from 'zod';
import { ProviderError, type TargetFault } from '../../domain/provider.ts';
import { saidOf } from './answers.ts';
import { leasePolicy } from './config.ts';
import { type DatabaseRole, groupsIn, readRole } from './describe.ts';
import type { Probe } from './probe.ts';
import { anything, type Vault } from './vault.ts';

/** A user whose credential was lost on the way lives as long as the role's own default, unknown to everybody. */
const longestDefaultSeconds = 3_600;

/** The faults that `work` finds; one that it fails with is one too. */
export async function collect(work: () => Promise<TargetFault[]>): Promise<TargetFault[]> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

/** A failure as a fault of the target. */
export const asFault = (error: ProviderError): TargetFault => ({ message: error.message, next: error.next ?? 'Try again; if it stays, look at the server.' });

/** What `sys/capabilities-…` answers: for each path what may be done there. */
export const capabilitiesShape = z.object({ data: z.record(z.string(), z.array(z.string())) });

/** Everything about one role: its definition, the token and the policy of its leases, its groups in the database. */
export async function roleFaults(vault: Vault, probe: Probe | null, name: string, signal: AbortSignal): Promise<TargetFault[]> {
  const role = await readRole(vault, name, signal);
  const faults = [...definitionFaults(vault, name, role), ...(await collect(() => tokenFaults(vault, name, signal)))];
  if (probe) faults.push(...(await groupFaults(vault, probe, name, role, signal)));
  return faults;
}

/** What the role's own words say. Only PostgreSQL's are read. */
export function definitionFaults(vault: Pick<Vault, 'config' | 'name'>, name: string, role: DatabaseRole): TargetFault[] {
  const { config } = vault;
  const path = `${config.mount}/roles/${name}`;
  const fault = (message: string, next: string): TargetFault => ({ message: `${vault.name}: ${path} ${message}`, next });
  const faults: TargetFault[] = [];
  if (role.default_ttl === 0 || role.default_ttl > longestDefaultSeconds)
    faults.push(
      fault(
        `has ${role.default_ttl === 0 ? 'no default_ttl of its own' : `a default_ttl of ${role.default_ttl} s`}: a user whose password was lost on the way would live that long.`,
        `Set default_ttl=2m there. Halligan sets each user's end to its grant's, up to max_ttl.`,
      ),
    );
  if (role.credential_type !== undefined && role.credential_type !== '' && role.credential_type !== 'password')
    faults.push(fault(`gives ${role.credential_type}, and Halligan hands on passwords only.`, 'Set credential_type=password there.'));
  if (config.plugin !== 'postgresql') return faults;
  const creation = role.creation_statements.join(';\n');
  const revocation = role.revocation_statements.join(';\n');
  if (!/VALID\s+UNTIL\s+'\{\{expiration\}\}'/i.test(creation))
    faults.push(
      fault(
        'makes users without an end in the database, so with Vault dead nothing ends them.',
        `Add VALID UNTIL '{{expiration}}' to its creation_statements.`,
      ),
    );
  if (/\bGRANT\b[^;]*\bON\b[^;]*\bTO\s+"?\{\{(name|username)\}\}/i.test(creation))
    faults.push(
      fault(
        'grants on objects to each user directly: every user makes the access lists of those objects longer, and at about 2,400 users PostgreSQL refuses more.',
        'Grant to a group role once, and make users members of it: … IN ROLE "the_group".',
      ),
    );
  const risky = /\b(?<!NO)(SUPERUSER|CREATEROLE|CREATEDB|REPLICATION|BYPASSRLS)\b/i.exec(creation);
  if (risky) faults.push(fault(`makes users with ${risky[0].toUpperCase()}.`, 'Take it out of its creation_statements.'));
  if (config.sessionsEndWithUser && !/pg_terminate_backend/i.test(revocation))
    faults.push(
      fault(
        'does not end open sessions, although the config says sessionsEndWithUser.',
        'Add pg_terminate_backend to its revocation_statements (docs/providers.md), or give a probe and say sessionsEndWithUser: false.',
      ),
    );
  return faults;
}

const tokenShape = z.object({ auth: z.object({ accessor: z.string(), orphan: z.boolean(), renewable: z.boolean(), token_policies: z.array(z.string()) }) });

/** A token of ten seconds is made as for a lease, looked at and ended: only Vault knows all its rules. */
async function tokenFaults(vault: Vault, role: string, signal: AbortSignal): Promise<TargetFault[]> {
  const { config, name } = vault;
  const policy = leasePolicy(config, role);
  const setup = 'Run the setup that docs/providers.md prints for this target.';
  const fault = (message: string): TargetFault => ({ message: `${name}: ${message}`, next: setup });
  let made: z.infer<typeof tokenShape>['auth'];
  try {
    const body = {
      policies: [policy],
      no_default_policy: true,
      renewable: false,
      explicit_max_ttl: '10s',
      display_name: 'halligan-check',
      meta: { halligan: 'check' },
    };
    made = (
      await vault.call({
        method: 'POST',
        path: `auth/token/create/${config.tokenRole}`,
        body,
        signal,
        doing: 'trying to make a token',
        shape: tokenShape,
        once: true,
      })
    ).auth;
  } catch (error) {
    const { status, message } = saidOf(error);
    if (status !== 400) throw error;
    return [
      fault(
        /unknown role/i.test(message)
          ? `there is no token role ${config.tokenRole}.`
          : `the token role ${config.tokenRole} does not allow the policy ${policy}.`,
      ),
    ];
  }
  try {
    const path = `${config.mount}/creds/${role}`;
    const { data } = await vault.call({
      method: 'POST',
      path: 'sys/capabilities-accessor',
      body: { accessor: made.accessor, paths: [path, `${config.mount}/creds/halligan-example`, 'sys/mounts/halligan-example'] },
      signal,
      doing: 'looking at what a lease may do',
      shape: capabilitiesShape,
    });
    const faults: TargetFault[] = [];
    if (!(data[path] ?? []).includes('read')) faults.push(fault(`the policy ${policy} does not let a lease read ${path}.`));
    if ([`${config.mount}/creds/halligan-example`, 'sys/mounts/halligan-example'].some((other) => (data[other] ?? []).some((one) => one !== 'deny')))
      faults.push(fault(`the policy ${policy} lets a lease do more than read ${path}.`));
    if (!made.orphan || made.renewable || made.token_policies.length !== 1)
      faults.push(fault(`the token role ${config.tokenRole} must say orphan=true, renewable=false and token_no_default_policy=true.`));
    return faults;
  } finally {
    await vault
      .call({ method: 'POST', path: 'auth/token/revoke-accessor', body: { accessor: made.accessor }, signal, doing: 'ending the trial token', shape: anything })
      .catch(() => undefined);
  }
}

/** Groups that are not there, or that would hand out Halligan's or Vault's own access. */
async function groupFaults(vault: Vault, probe: Probe, name: string, role: DatabaseRole, signal: AbortSignal): Promise<TargetFault[]> {
  const path = `${vault.config.mount}/roles/${name}`;
  const groups = groupsIn(role);
  const rows = await probe.door.run(signal, 'looking at groups', async (client) => {
    const found = await client.query<{ name: string; strong: boolean }>(
      `SELECT r.rolname AS name, EXISTS (SELECT 1 FROM pg_catalog.pg_roles p WHERE pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER')
                AND (p.rolsuper OR p.rolcreaterole OR p.rolcreatedb OR p.rolreplication OR p.rolbypassrls OR p.rolcanlogin
                     OR p.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend'))) AS strong
         FROM pg_catalog.pg_roles r WHERE r.rolname = ANY($1)`,
      [groups],
    );
    return found.rows;
  });
  return groups.flatMap((group): TargetFault[] => {
    const row = rows.find((one) => one.name === group);
    if (!row)
      return [
        {
          message: `${vault.name}: ${path} makes members of ${group}, which the database does not have.`,
          next: `CREATE ROLE ${group} NOLOGIN; with the rights that are to be given.`,
        },
      ];
    if (!row.strong) return [];
    return [
      {
        message: `${vault.name}: ${path} makes members of ${group}, which is, or leads to, a login or a role with rights beyond the data.`,
        next: 'Make a group role without a login that has rights on the data only.',
      },
    ];
  });
}
