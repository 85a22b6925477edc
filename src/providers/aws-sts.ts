/**
 * Sessions of roles in an AWS account. A lease is a session that AWS itself ends at the grant's end, to the second, by a
 * condition in its session policy; it can be ended earlier by a denial on its role. AWS keeps no list of sessions: nothing
 * is there to be found, listed or deleted, and what this means for each call of the contract is said in `aws-sts/revoke.ts`.
 */
import type { Limits, Provider, Target } from '../domain/provider.ts';
import { checkAccount } from './aws-sts/check.ts';
import { type Grant, grantSchema, type TargetConfig, targetSchema } from './aws-sts/config.ts';
import { describeGrant } from './aws-sts/describe.ts';
import { openDoor } from './aws-sts/door.ts';
import { issue } from './aws-sts/issue.ts';
import { prints } from './aws-sts/least-rights.ts';
import { openEnder } from './aws-sts/revoke.ts';
import { openRoleReader } from './aws-sts/roles.ts';

const pruneEveryMs = 10 * 60_000;

/**
 * See docs/providers.md. Every call of a holder is judged anew, so an open session is no different from a new login. At the
 * grant's own end AWS refuses within a second, with or without Halligan. After an early end AWS may take `propagationSeconds`;
 * where roles cannot be edited, an early end is felt only when the session ends by itself.
 */
export function limitsOf({ earlyEnd, propagationSeconds, allowStaticKeys }: TargetConfig): Limits {
  const alive = earlyEnd ? propagationSeconds + 5 : allowStaticKeys ? 12 * 3_600 : 3_600;
  return { newLogin: { alive, dead: 1 }, openSession: { alive, dead: 1 } };
}

export const awsSts: Provider = {
  kind: 'aws-sts',
  prints,
  targetSchema,
  grantSchema,
  grantInWords: (grant) => {
    const { role, policy, persistence } = grant as Grant;
    return `role ${role}${policy === undefined ? '' : ', a part of it'}${persistence === 'allowed' ? ', may make access that outlives the grant' : ''}`;
  },
  connect(name, block, options): Target {
    const config = block as TargetConfig;
    const door = openDoor(name, config, options);
    const readRole = openRoleReader(door);
    const ender = openEnder(door, readRole);
    let prunedAt = Number.NEGATIVE_INFINITY;
    return {
      name,
      kind: 'aws-sts',
      limits: limitsOf(config),
      unlisted: true,
      check: (grants, signal) => checkAccount(door, readRole, grants as readonly Grant[], signal),
      describe: (grant, signal) => describeGrant(door, readRole, grant as Grant, signal),
      issue: (spec, signal) => issue(door, readRole, spec, signal),
      /** The same call: AWS knows a lease by the session's name alone, and a denial of that name stops every session that bears it. */
      another: (spec, signal) => issue(door, readRole, spec, signal),
      inspect: ender.inspect,
      revoke: ender.revoke,
      /** Names nothing, because AWS lists no sessions. Deletes denials that are over, now and then. */
      async sweep(signal) {
        if (performance.now() - prunedAt < pruneEveryMs && !signal.aborted) return [];
        await ender.prune(signal);
        prunedAt = performance.now();
        return [];
      },
      close: async () => door.close(),
    };
  },
};
