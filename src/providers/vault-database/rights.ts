/** The least rights that a target needs, as text to paste. The live suite runs with exactly these. */
import type { PrintTarget } from '../../domain/provider.ts';
import { indexPath, leasePolicy, type VaultConfig, type VaultGrant } from './config.ts';

const rolesOf = (grants: readonly unknown[]): string[] => [...new Set(grants.map((grant) => (grant as VaultGrant).role))].sort();
const hcl = (text: string): string => JSON.stringify(text);

/** Halligan's own ACL policy for one target: `vault-policy` of `halligan print`. */
export function leastRights(config: VaultConfig, grants: readonly unknown[], target: string): string {
  const creds = rolesOf(grants).map((role) => hcl(`${config.mount}/creds/${role}/*`));
  const leaseOnly = (path: string, more = ''): string => `path ${hcl(path)} {
  capabilities = ["update"]
  allowed_parameters = {
    "lease_id" = [${creds.join(', ')}]${more}
  }
}`;
  const index = indexPath(config, target);
  return `# Halligan, target ${target}: make and end the tokens of leases, and nothing a lease may read.
path ${hcl(`auth/token/create/${config.tokenRole}`)} { capabilities = ["update"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }

# Look at, shorten and end the database users of these roles.
${leaseOnly('sys/leases/lookup')}
${leaseOnly('sys/leases/renew', '\n    "increment" = []')}
${leaseOnly('sys/leases/revoke', '\n    "sync" = []')}
${rolesOf(grants)
  .map((role) => `path ${hcl(`${config.mount}/roles/${role}`)} { capabilities = ["read"] }`)
  .join('\n')}

# The index of open leases. It holds no secret.
path ${hcl(`${index}/*`)} { capabilities = ["create", "update", "read", "delete", "list"] }
path ${hcl(index)} { capabilities = ["list"] }

# Its own login, and what the check of the target asks.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/capabilities-accessor" { capabilities = ["update"] }
`;
}

/** What the token of a lease may do: read one path. */
export const leasePolicyText = (config: VaultConfig, role: string): string => `path ${hcl(`${config.mount}/creds/${role}`)} { capabilities = ["read"] }\n`;

/**
 * The commands that an administrator of Vault pastes, as often as they like: `vault-setup` of `halligan print`. With Vault, put `vault` for `bao`.
 * They run in a shell of their own, which ends at the first that fails and leaves the administrator's as it was.
 * `longestSeconds`: the longest that any entitlement allows; Vault then makes no token for longer, whoever asks.
 */
export function setupCommands(config: VaultConfig, grants: readonly unknown[], target: string, longestSeconds?: number): string {
  const roles = rolesOf(grants);
  const policy = (name: string, text: string): string => `bao policy write ${name} - <<'POLICY'\n${text}POLICY`;
  const { indexMount } = config;
  return `( # ${target}. May be pasted again at any time: what is there already stays, or becomes what it says here.
set -e
${config.namespace === undefined ? '' : `export BAO_NAMESPACE=${config.namespace}\n`}
# 1. The index of open leases: an engine that only Halligan uses.
if ! engine=$(bao read -field=type sys/mounts/${indexMount} 2>/dev/null); then
  bao secrets enable -path=${indexMount} -version=1 kv
else
  case "$engine $(bao read -field=options sys/mounts/${indexMount} 2>/dev/null)" in
    'kv '*version:2*) fits=no ;;
    'kv '*) fits=yes ;;
    *) fits=no ;;
  esac
  if [ $fits = no ]; then
    echo "${indexMount} is there, and is no kv version 1, which the index needs: choose another indexMount. Nothing was changed." >&2
    exit 1
  fi
fi

# 2. What a lease may do: read one path. One policy for each role that an entitlement opens.
${roles.map((role) => policy(leasePolicy(config, role), leasePolicyText(config, role))).join('\n')}

# 3. The tokens of leases: orphans that cannot be renewed, with one of these policies and no other.
bao write auth/token/roles/${config.tokenRole} orphan=true renewable=false token_type=service token_no_default_policy=true \\
  ${longestSeconds === undefined ? '' : `token_explicit_max_ttl=${longestSeconds}s `}allowed_policies=${roles.map((role) => leasePolicy(config, role)).join(',')}

# 4. Halligan's own rights.
${policy(`halligan-${target}`, leastRights(config, grants, target))}
)
`;
}

const grantsOf = (target: PrintTarget): unknown[] => target.grants.map(({ grant }) => grant);

/** What `halligan print` says for targets of this kind, by name. */
export const prints: Readonly<Record<string, (targets: readonly PrintTarget[]) => string>> = {
  'vault-policy': (targets) => targets.map((target) => leastRights(target.config as VaultConfig, grantsOf(target), target.name)).join('\n'),
  'vault-setup': (targets) =>
    targets
      .map((target) => {
        const longest = Math.max(0, ...target.grants.map(({ maxDurationSeconds }) => maxDurationSeconds));
        return setupCommands(target.config as VaultConfig, grantsOf(target), target.name, longest > 0 ? longest : undefined);
      })
      .join('\n'),
};
