/**
 * Database users that Vault or OpenBao makes. Each lease has a token of its own, which nobody but Vault remembers: an orphan
 * that cannot be renewed and ends with the grant, and Vault ends with it whatever was issued under it, also when Halligan is
 * dead. The user's own end in the database is drawn to the grant's as well, so it holds with Vault dead too.
 */
import { type Inspected, type LeaseRef, type Limits, type Provider, ProviderError, type Target } from '../domain/provider.ts';
import { type Attempt, accessorsOf, allLeases, readAttempt } from './vault-database/attempts.ts';
import { checkTarget } from './vault-database/check.ts';
import { grantSchema, targetSchema, type VaultConfig, type VaultGrant } from './vault-database/config.ts';
import { describe } from './vault-database/describe.ts';
import { issue } from './vault-database/issue.ts';
import { openProbe, type Probe } from './vault-database/probe.ts';
import { readDatabaseLease, readToken } from './vault-database/read.ts';
import { revoke } from './vault-database/revoke.ts';
import { prints } from './vault-database/rights.ts';
import { together } from './vault-database/together.ts';
import { openVault, type Vault } from './vault-database/vault.ts';

export { leastRights, setupCommands } from './vault-database/rights.ts';

/**
 * See docs/providers.md, which says how each was measured. `dead` is with Halligan dead; a new login is bounded also with Vault
 * dead, by VALID UNTIL, which PostgreSQL's plugin sets five seconds late, and we up to one. An open session ends with
 * Halligan dead where the role's statements end it, and otherwise, or with Vault dead as well, in the reaper's next round
 * after VALID UNTIL; a round takes less than a minute.
 */
const limitsOf = (config: VaultConfig): Limits => ({
  newLogin: { alive: 1, dead: config.plugin === 'postgresql' ? 7 : 2 },
  openSession: { alive: 1, dead: config.sessionsEndWithUser ? 2 : config.reaper === false ? null : (config.reaper === true ? 60 : config.reaper) + 66 },
});

export const vaultDatabase: Provider = {
  kind: 'vault-database',
  prints,
  targetSchema,
  grantSchema,
  grantInWords: (grant) => `Vault role ${(grant as VaultGrant).role}`,
  connect(name, given, options): Target {
    const config = given as VaultConfig;
    const vault = openVault(name, config, options);
    const probe = openProbe(name, config, options);
    const describing = together(
      (role, signal) => describe(vault, probe, role, signal),
      8_000,
      (role) => new ProviderError('target_timeout', `${name}: reading what ${role} opens took too long.`),
    );
    return {
      name,
      kind: 'vault-database',
      limits: limitsOf(config),
      check: (grants, signal) =>
        checkTarget(
          vault,
          probe,
          grants.map((grant) => (grant as VaultGrant).role),
          signal,
        ),
      describe: (grant, signal) => describing((grant as VaultGrant).role, signal),
      issue: (spec, signal) => issue(vault, probe, spec, signal),
      inspect: (ref, signal) => inspect(vault, probe, ref, signal),
      revoke: (ref, signal) => revoke(vault, probe, ref, signal),
      sweep: (signal) => allLeases(vault, signal),
      async close() {
        await Promise.all([vault.close(), probe?.close()]);
      },
    };
  },
};

/** Of several attempts the one that can be used counts. A user that the database still lets in counts as usable, whatever Vault says. */
async function inspect(vault: Vault, probe: Probe | null, ref: LeaseRef, signal: AbortSignal): Promise<Inspected> {
  const seen: Extract<Inspected, { state: 'present' }>[] = [];
  for (const accessor of await accessorsOf(vault, ref, signal)) {
    const attempt = await readAttempt(vault, ref, accessor, signal);
    if (attempt) seen.push(await inspectAttempt(vault, probe, ref, attempt, signal));
  }
  const best = seen.find((one) => one.usable) ?? seen.at(-1);
  if (!best) return { state: 'absent' };
  return { ...best, openSessions: probe === null ? null : seen.reduce((sum, one) => sum + (one.openSessions ?? 0), 0) };
}

async function inspectAttempt(
  vault: Vault,
  probe: Probe | null,
  ref: LeaseRef,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<Extract<Inspected, { state: 'present' }>> {
  const [token, lease, user] = await Promise.all([
    readToken(vault, ref, attempt.accessor, signal),
    attempt.databaseLease ? readDatabaseLease(vault, attempt.databaseLease, signal) : null,
    probe && attempt.username ? probe.find(attempt.username, signal) : null,
  ]);
  const ends = [token?.expiresAt, lease?.expiresAt].flatMap((end) => (end ? [end.getTime()] : []));
  const expiresAt = new Date(ends.length > 0 ? Math.min(...ends) : Date.parse(attempt.until));
  const inTime = expiresAt.getTime() > Date.now() + vault.skewMs();
  return { state: 'present', usable: (user?.canLogin ?? false) || (token !== null && lease !== null && inTime), expiresAt, openSessions: user?.sessions ?? 0 };
}
