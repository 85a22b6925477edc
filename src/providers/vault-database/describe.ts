/** What a role of the secrets engine really opens, for the person who must approve it: its statements' group, and through the probe what that group may do. */
import { z } from 'zod';
import { type Description, ProviderError } from '../../domain/provider.ts';
import { describeRole } from '../postgres/describe.ts';
import { oneLine } from '../postgres/sql.ts';
import { saidOf } from './answers.ts';
import { missingRole } from './issue.ts';
import type { Probe } from './probe.ts';
import type { Vault } from './vault.ts';

const statements = z
  .union([z.array(z.string()), z.string().transform((one) => (one === '' ? [] : [one]))])
  .nullish()
  .transform((list) => list ?? []);
const roleShape = z.object({
  data: z.object({
    db_name: z.string(),
    creation_statements: statements,
    revocation_statements: statements,
    default_ttl: z.number(),
    max_ttl: z.number(),
    credential_type: z.string().optional(),
  }),
});
export type DatabaseRole = z.infer<typeof roleShape>['data'];

/** The role as it stands in Vault now. Throws `target_missing_role` when there is none. */
export async function readRole(vault: Vault, role: string, signal: AbortSignal): Promise<DatabaseRole> {
  const { mount } = vault.config;
  try {
    return (await vault.call({ method: 'GET', path: `${mount}/roles/${role}`, signal, doing: 'reading the role', shape: roleShape })).data;
  } catch (error) {
    const { status, message } = saidOf(error);
    if (status !== 404) throw error;
    if (message === '') throw missingRole(vault, role);
    throw new ProviderError('target_missing_role', `${vault.name}: Vault has no secrets engine at ${mount}.`, {
      next: 'Correct "mount" in the target\'s config: bao secrets list',
    });
  }
}

/** The groups that a PostgreSQL user of this role becomes a member of, as its statements say. */
export function groupsIn(role: DatabaseRole): string[] {
  const text = role.creation_statements.join(';\n');
  const name = String.raw`("(?:[^"]|"")+"|[\w$]+)`;
  const inRole = [...text.matchAll(new RegExp(String.raw`\bIN\s+(?:ROLE|GROUP)\s+${name}((?:\s*,\s*${name})*)`, 'gi'))].flatMap((match) => [
    match[1],
    ...(match[2] ?? '').split(','),
  ]);
  const granted = [...text.matchAll(new RegExp(String.raw`\bGRANT\s+${name}((?:\s*,\s*${name})*)\s+TO\s+"?\{\{(?:name|username)\}\}"?`, 'gi'))].flatMap(
    (match) => [match[1], ...(match[2] ?? '').split(',')],
  );
  const plain = [...inRole, ...granted].map((one) => (one ?? '').trim()).filter((one) => one !== '' && !one.includes('{{'));
  return [...new Set(plain.map((one) => (one.startsWith('"') ? one.slice(1, -1).replaceAll('""', '"') : one.toLowerCase())))];
}

const hours = (seconds: number): string => (seconds % 3_600 === 0 ? `${seconds / 3_600} h` : seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`);

/** In one line and in full. What the groups may do is read in the database when there is a probe. */
export async function describe(vault: Vault, probe: Probe | null, roleName: string, signal: AbortSignal): Promise<Description> {
  const role = await readRole(vault, roleName, signal);
  const groups = vault.config.plugin === 'postgresql' ? groupsIn(role) : [];
  const opened: Description[] = [];
  if (probe)
    for (const group of groups)
      opened.push(await probe.door.run(signal, `reading what ${group} opens`, (client) => describeRole(client, group, probe.database)));
  const what =
    opened.length > 0
      ? opened.map((one) => one.summary.replace(/^a login in /, 'a member of ')).join('; ')
      : groups.length > 0
        ? `a member of ${groups.join(', ')}`
        : 'what its statements say';
  const details = [
    `made by ${vault.config.mount}/roles/${roleName} in the database connection ${role.db_name}`,
    ...role.creation_statements.map((statement) => `creation: ${oneLine(statement)}`),
    ...role.revocation_statements.map((statement) => `revocation: ${oneLine(statement)}`),
    ...(role.max_ttl > 0 ? [`Vault ends it after ${hours(role.max_ttl)} at the latest`] : []),
    ...opened.flatMap((one) => one.details),
  ];
  return {
    summary: oneLine(`a database user of ${vault.config.mount}/roles/${roleName}: ${what}`),
    details: details.length > 200 ? [...details.slice(0, 199), `and ${details.length - 199} more`] : details,
  };
}
