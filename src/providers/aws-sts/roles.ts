/** Roles as IAM has them now, and which of them a lease may be of. */
import { GetRoleCommand } from '@aws-sdk/client-iam';
import { type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { type Grant, type Role, roleOf } from './config.ts';
import { type Door, saidOf } from './door.ts';

export interface FoundRole extends Role {
  /** What `aws:userid` of its sessions begins with. A role that is made again under the same name gets another. */
  readonly id: string;
  readonly mostSeconds: number;
  readonly trust: string;
}

/** A role as it was read is believed for this long by a claim. */
const keptMs = 60_000;

export type RoleReader = (role: Role, signal: AbortSignal, fresh?: boolean) => Promise<FoundRole>;

/** Reads roles, and remembers each for a minute. Throws `target_missing_role`, with `nothingMade`, for one that is not there. */
export function openRoleReader(door: Door): RoleReader {
  const kept = new Map<string, { found: FoundRole; until: number }>();
  return async (role, signal, fresh = false) => {
    const known = kept.get(role.arn);
    if (known && !fresh && known.until > performance.now()) return known.found;
    try {
      const { Role: found } = await door.run(signal, `looking at the role ${role.name}`, ({ iam }, abortSignal) =>
        iam.send(new GetRoleCommand({ RoleName: role.name }), { abortSignal }),
      );
      if (!found?.RoleId || !found.Arn) throw new ProviderError('target_failed', `${door.name} answered without the role ${role.name}.`);
      // IAM's calls know a role by its name alone, which is unique in an account; the path must be what the config says as well.
      if (found.Arn !== role.arn) throw missing(door, role, `the role of that name is ${found.Arn}`);
      const whole = {
        ...role,
        id: found.RoleId,
        mostSeconds: found.MaxSessionDuration ?? 3_600,
        trust: decodeURIComponent(found.AssumeRolePolicyDocument ?? ''),
      };
      kept.set(role.arn, { found: whole, until: performance.now() + keptMs });
      return whole;
    } catch (error) {
      kept.delete(role.arn);
      throw saidOf(error).code === 'NoSuchEntity' ? missing(door, role, 'there is none of that name') : error;
    }
  };
}

const missing = (door: Door, role: Role, why: string): ProviderError =>
  new ProviderError('target_missing_role', `${door.name} has no role ${role.arn}: ${why}.`, {
    next: "Make it in that account, or correct the entitlement's grant.",
    nothingMade: true,
  });

/** The role of a grant block, if this target may hand it out. Throws `target_forbids` for a role of another account or outside the target's list. */
export function givableRole({ name, config }: Door, grant: Grant): Role {
  const role = roleOf(config, grant.role);
  if (role.account !== config.account)
    throw new ProviderError('target_forbids', `${name} is the account ${config.account}, and ${role.arn} belongs to the account ${role.account}.`, {
      next: 'Name a role of this account, or a target of that one.',
      nothingMade: true,
    });
  if (!config.roles.some((text) => roleOf(config, text).arn === role.arn))
    throw new ProviderError('target_forbids', `${name} does not hand out ${role.arn}: it is not among the target's "roles".`, {
      next: 'Add it to "roles" of the target in the config, or correct the entitlement.',
      nothingMade: true,
    });
  return role;
}

/** The roles of which this lease can be: the one it was made with, where the caller knows it, otherwise all that the target may hand out. */
export function rolesOf({ config }: Door, ref: LeaseRef): readonly Role[] {
  const named = (ref.grant as Partial<Grant> | null | undefined)?.role;
  const texts = typeof named === 'string' ? [named] : config.roles;
  return [...new Map(texts.map((text) => roleOf(config, text)).map((role) => [role.arn, role])).values()];
}
