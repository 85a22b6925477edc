/** Who lives in a test house, what they may ask for, and the config file that says so. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inject } from 'vitest';
import { generateSigningKey } from '../../src/audit/checkpoint.ts';
import type { DevelopmentPerson } from '../../src/demo/identity-provider.ts';
import type { TestDatabase, TestTarget } from './postgres.ts';

/** Everyone whom the tests know. Groups are those of the entitlements below. */
export const housePeople = (): DevelopmentPerson[] => [
  { subject: 'oncall', name: 'On-call engineer', groups: ['oncall'] },
  { subject: 'oncall-2', name: 'Second on-call engineer', groups: ['oncall'] },
  { subject: 'lead', name: 'Team lead', groups: ['leads'] },
  { subject: 'lead-2', name: 'Second team lead', groups: ['leads'] },
  { subject: 'lead-oncall', name: 'Lead on call', groups: ['leads', 'oncall'] },
  { subject: 'security', name: 'Security engineer', groups: ['security'] },
  { subject: 'reviewer', name: 'Reviewer', groups: ['reviewers'] },
  { subject: 'auditor', name: 'Auditor', groups: ['auditors'] },
  { subject: 'admin', name: 'Administrator', groups: ['admins'] },
  { subject: 'stranger', name: 'Somebody else', groups: [] },
];

/** `orders-readonly` needs one lead, `orders-two` two of them, `orders-both` a lead and somebody of security. */
export const houseEntitlements = (role: string, target = 'orders-db'): string => `
  orders-readonly:
    opens: read the orders database
    target: ${target}
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 4h
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
    review: { of: { groups: [reviewers] } }
  orders-two:
    opens: read the orders database, with two pairs of eyes
    target: ${target}
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 2 } ]
    maxDuration: 1h
  orders-both:
    opens: read the orders database, with two kinds of eyes
    target: ${target}
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 }, { of: { groups: [security] }, count: 1 } ]
    maxDuration: 1h`;

/** What of a house's options stands in its config. */
export interface ConfigOptions {
  readonly pendingPerPerson?: number;
  readonly logLevel?: 'debug' | 'info' | 'error';
  /** Instead of the target's own port: that of a proxy in front. */
  readonly targetPort?: (real: number) => Promise<number> | number;
  /** The `entitlements` block, indented by two spaces. */
  readonly entitlements?: (target: TestTarget) => string;
  /** More blocks at the top of the file, as YAML: how people are told. */
  readonly tell?: string;
  /** More targets, as YAML indented by two spaces. */
  readonly moreTargets?: (target: TestTarget) => string;
}

/** Writes the config and the secrets that it names into `folder`. */
export async function writeConfig(folder: string, parts: { url: string; issuer: string; database: TestDatabase; target: TestTarget }, options: ConfigOptions) {
  const { signingKey, verifierKey } = generateSigningKey('halligan-test');
  await writeFile(join(folder, 'audit.key'), `${signingKey}\n`, { mode: 0o600 });
  await writeFile(join(folder, 'client-secret'), 'the test client has this secret\n', { mode: 0o600 });
  await writeFile(join(folder, 'db-password'), `${inject('server').appPassword}\n`, { mode: 0o600 });
  const databaseUrl = new URL(parts.database.appUrl);
  databaseUrl.password = '';
  const port = (await options.targetPort?.(parts.target.config.port)) ?? parts.target.config.port;
  const text = `server: { url: '${parts.url}', listen: '${new URL(parts.url).host}' }
database: { url: '${databaseUrl.href}', passwordFile: db-password }
login: { issuer: '${parts.issuer}', clientId: halligan, clientSecretFile: client-secret, scopes: [openid, profile, groups] }
audit: { signingKeyFile: audit.key, checkpoints: { directory: checkpoints } }
roles: { auditors: { groups: [auditors] }, admins: { groups: [admins] } }
limits: { pendingPerPerson: ${options.pendingPerPerson ?? 200} }
log: { level: ${options.logLevel ?? 'info'} }
${options.tell ?? ''}
targets:
  orders-db: ${JSON.stringify({ kind: 'postgres', ...parts.target.config, port })}
${options.moreTargets?.(parts.target) ?? ''}
entitlements:${options.entitlements?.(parts.target) ?? houseEntitlements(parts.target.groupRole)}
`;
  const file = join(folder, 'halligan.yaml');
  await writeFile(file, text);
  return { file, text, verifierKey };
}
