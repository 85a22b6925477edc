/** Everything that can be wrong with a Vault target before anybody needs it, each with what mends it. Its roles are looked at in `check-role.ts`. */
import { z } from 'zod';
import { ProviderError, type TargetFault } from '../../domain/provider.ts';
import { saidOf } from './answers.ts';
import { asFault, capabilitiesShape, collect, roleFaults } from './check-role.ts';
import { indexPath } from './config.ts';
import type { Probe } from './probe.ts';
import type { Vault } from './vault.ts';

/** At most this far may Vault's clock be from ours before grants end visibly early or late there. */
const mostSkewSeconds = 5;

/** All faults at once. A target that cannot be reached has one: that. */
export async function checkTarget(vault: Vault, probe: Probe | null, roles: readonly string[], signal: AbortSignal): Promise<TargetFault[]> {
  try {
    await vault.ready(signal);
    const faults = [...loginFaults(vault), ...clockFaults(vault), ...(await rightsFaults(vault, roles, signal)), ...(await engineFaults(vault, signal))];
    for (const role of [...new Set(roles)]) faults.push(...(await collect(() => roleFaults(vault, probe, role, signal))));
    if (probe) faults.push(...(await collect(() => probeFaults(vault, probe, signal))));
    return faults;
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

function loginFaults({ name, config }: Vault): TargetFault[] {
  if (config.auth.method !== 'approle') return [];
  return [
    {
      message: `${name}: Halligan logs in to Vault with a stored secret id (approle), which works from anywhere for whoever copies it.`,
      next: 'Use the method kubernetes or jwt, where the platform proves who Halligan is.',
      warning: true,
    },
  ];
}

function clockFaults(vault: Vault): TargetFault[] {
  const seconds = Math.round(vault.skewMs() / 1_000);
  if (Math.abs(seconds) <= mostSkewSeconds) return [];
  return [
    {
      message: `${vault.name}: Vault's clock is ${Math.abs(seconds)} s ${seconds > 0 ? 'ahead of' : 'behind'} Halligan's.`,
      next: 'Set both by NTP: a grant ends by the clock of its target.',
    },
  ];
}

/** What must be possible, and what must not. */
async function rightsFaults(vault: Vault, roles: readonly string[], signal: AbortSignal): Promise<TargetFault[]> {
  const { config, name } = vault;
  const example = `${indexPath(config, name)}/example/example`;
  const needed: [string, string][] = [
    [`auth/token/create/${config.tokenRole}`, 'update'],
    ['auth/token/lookup-accessor', 'update'],
    ['auth/token/revoke-accessor', 'update'],
    ['sys/leases/lookup', 'update'],
    ['sys/leases/renew', 'update'],
    ['sys/leases/revoke', 'update'],
    ['sys/capabilities-accessor', 'update'],
    ...['create', 'update', 'read', 'delete', 'list'].map((capability): [string, string] => [example, capability]),
    ...roles.map((role): [string, string] => [`${config.mount}/roles/${role}`, 'read']),
  ];
  const forbidden = [
    'auth/token/create',
    'auth/token/create-orphan',
    'auth/token/accessors/',
    `auth/token/roles/${config.tokenRole}`,
    'sys/policies/acl/halligan-example',
    'sys/mounts/halligan-example',
    'sys/auth/halligan-example',
    'sys/leases/revoke-prefix/halligan-example',
    `${config.mount}/config/halligan-example`,
    ...roles.map((role) => `${config.mount}/creds/${role}`),
  ];
  const { data } = await vault.call({
    method: 'POST',
    path: 'sys/capabilities-self',
    body: { paths: [...new Set([...needed.map(([path]) => path), ...forbidden])] },
    signal,
    doing: "reading Halligan's own rights",
    shape: capabilitiesShape,
  });
  const has = (path: string): string[] => (data[path] ?? []).filter((capability) => capability !== 'deny');
  if (has('sys/mounts/halligan-example').includes('root'))
    return [{ message: `${name}: Halligan is logged in to Vault as root.`, next: 'Give it its own policy: docs/providers.md prints it.' }];
  const missing = needed.filter(([path, capability]) => !has(path).includes(capability) && !has(path).includes('root'));
  const excess = forbidden.filter((path) => has(path).length > 0);
  const next = 'Write the policy that docs/providers.md prints for this target, and no other, to the role that Halligan logs in by.';
  return [
    ...(missing.length > 0
      ? [{ message: `${name}: Halligan lacks rights at Vault: ${missing.map(([path, capability]) => `${capability} on ${path}`).join(', ')}.`, next }]
      : []),
    ...(excess.length > 0
      ? [
          {
            message: `${name}: Halligan has more rights at Vault than it needs: ${excess.map((path) => `${has(path).join('+')} on ${path}`).join(', ')}.`,
            next,
          },
        ]
      : []),
  ];
}

const mountShape = z.object({ data: z.object({ type: z.string(), options: z.record(z.string(), z.string()).nullish() }) });

/** The kind of engine behind a path, as every token may ask that may use something there; null when that is not told. */
async function mountAt(vault: Vault, path: string, signal: AbortSignal): Promise<{ type: string; version: string | undefined } | null> {
  try {
    const { data } = await vault.call({ method: 'GET', path: `sys/internal/ui/mounts/${path}`, signal, doing: 'looking at an engine', shape: mountShape });
    return { type: data.type, version: data.options?.['version'] };
  } catch (error) {
    if ([400, 403, 404].includes(saidOf(error).status)) return null;
    throw error;
  }
}

async function engineFaults(vault: Vault, signal: AbortSignal): Promise<TargetFault[]> {
  const { config, name } = vault;
  const [database, index] = await Promise.all([mountAt(vault, config.mount, signal), mountAt(vault, config.indexMount, signal)]);
  const faults: TargetFault[] = [];
  if (database && database.type !== 'database')
    faults.push({
      message: `${name}: what is mounted at ${config.mount} is of type ${database.type}, not database.`,
      next: 'Correct "mount": bao secrets list',
    });
  if (!index)
    faults.push({
      message: `${name}: there is no engine for the index at ${config.indexMount}.`,
      next: 'Run the commands of halligan print vault-setup.',
    });
  else if (index.type !== 'kv' || index.version === '2')
    faults.push({
      message:
        `${name}: what is mounted at ${config.indexMount} is ${index.type} ${index.version ?? ''}, and the index needs kv version 1, which keeps no old versions.`.replace(
          '  ',
          ' ',
        ),
      next: `Choose another indexMount and: bao secrets enable -path=… -version=1 kv`,
    });
  return faults;
}

async function probeFaults(vault: Vault, probe: Probe, signal: AbortSignal): Promise<TargetFault[]> {
  const user = vault.config.probe?.user ?? '';
  const may = await probe.door.run(signal, 'looking at the probe', async (client) => {
    const { rows } = await client.query<{ ends: boolean; strong: boolean }>(
      `SELECT pg_catalog.pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS ends, r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls AS strong
         FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`,
    );
    return rows[0];
  });
  return [
    ...(may?.ends
      ? []
      : [{ message: `${vault.name}: the probe ${user} may not end sessions.`, next: `As a superuser there: GRANT pg_signal_backend TO "${user}";` }]),
    ...(may?.strong
      ? [
          {
            message: `${vault.name}: the probe ${user} has more rights than it needs.`,
            next: `As a superuser there: ALTER ROLE "${user}" NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;`,
          },
        ]
      : []),
  ];
}
