/**
 * Access to a Kubernetes cluster: for each lease one binding of a role that is there already, for the person's own login at
 * the cluster (`mode: user`) or for a service account of the lease (`mode: token`). The cluster does not end a binding by
 * itself; the end stands on it, and the reaper ends it when Halligan cannot. Loaded only when a config names this kind:
 * the client library takes two seconds to load.
 */
import type { Inspected, LeaseRef, Limits, Provider, Target } from '../domain/provider.ts';
import { another } from './kubernetes-rbac/another.ts';
import { type Door, openDoor } from './kubernetes-rbac/api.ts';
import { checkTarget } from './kubernetes-rbac/check.ts';
import { type Grant, grantInWords, grantSchema, type TargetConfig, targetSchema } from './kubernetes-rbac/config.ts';
import { revoke } from './kubernetes-rbac/end.ts';
import { everyHeld, heldOf, isBinding } from './kubernetes-rbac/held.ts';
import { issue, shortestTokenSeconds } from './kubernetes-rbac/issue.ts';
import { refOf } from './kubernetes-rbac/marker.ts';
import { leastRights as leastRightsOf } from './kubernetes-rbac/rights.ts';
import { describeRole, mustBeGivable, readRole } from './kubernetes-rbac/roles.ts';

/** The API server gives out no token for less than this, and goes on taking one for a minute after its end, and ten seconds more out of its cache. */
const tokenOutlives = shortestTokenSeconds + 60 + 10;

/**
 * See docs/providers.md, which says how each was measured. Every call shows who it is from anew, so what counts is the
 * next call. Without the reaper nothing ends a binding when Halligan is dead; a token ends by itself.
 */
const limitsOf = (config: TargetConfig, mode: Grant['mode']): Limits => {
  const bound = mode === 'token' ? tokenOutlives : null;
  const dead = config.reaper ? 120 : bound;
  return { newLogin: { alive: 1, dead }, openSession: { alive: 1, dead }, staysOpen: 'a watch, a log that is followed, a forwarded port or a shell in a pod' };
};

export const kubernetesRbac: Provider = {
  kind: 'kubernetes-rbac',
  prints: {
    'k8s-rbac': (targets) =>
      targets
        .map(({ config, grants }) =>
          leastRights(
            config,
            grants.map(({ grant }) => grant),
          ),
        )
        .join('---\n'),
  },
  targetSchema,
  grantSchema,
  grantInWords: (grant) => grantInWords(grant as Grant),
  connect(name, config, options): Target {
    const door = openDoor(name, config as TargetConfig, options);
    return {
      name,
      kind: 'kubernetes-rbac',
      limits: limitsOf(door.config, 'user'),
      limitsFor: (grant) => limitsOf(door.config, (grant as Grant).mode),
      check: (grants, signal) => checkTarget(door, grants as readonly Grant[], signal),
      describe: async (grant, signal) => {
        const role = await readRole(door, grant as Grant, signal);
        mustBeGivable(door, grant as Grant, role);
        return describeRole(grant as Grant, role);
      },
      issue: (spec, signal) => issue(door, spec, signal),
      another: (spec, signal) => another(door, spec, signal),
      opensOwnLogin: (grant) => (grant as Grant).mode === 'user',
      inspect: (ref, signal) => inspect(door, ref, signal),
      revoke: (ref, signal) => revoke(door, ref, signal),
      sweep: (signal) => sweep(door, signal),
      close: () => door.close(),
    };
  },
};

/** The manifest with the least rights for a target's block and the grants of its entitlements, both as their schemas parsed them; for `halligan print k8s-rbac`. */
export const leastRights = (config: unknown, grants: readonly unknown[]): string => leastRightsOf(config as TargetConfig, grants as readonly Grant[]);

/** A binding under the name counts even without our marker, and after its end: while it is there, it opens. */
async function inspect(door: Door, ref: LeaseRef, signal: AbortSignal): Promise<Inspected> {
  const { held } = await heldOf(door, ref, signal);
  if (held.length === 0) return { state: 'absent' };
  const binding = held.find(isBinding);
  return { state: 'present', usable: binding !== undefined, expiresAt: (binding ?? held[0])?.until ?? null, openSessions: 0 };
}

async function sweep(door: Door, signal: AbortSignal): Promise<LeaseRef[]> {
  const { held } = await everyHeld(door, signal);
  return [...new Set(held.flatMap(({ leaseId }) => leaseId ?? []))].toSorted().map(refOf);
}
