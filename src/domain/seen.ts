/** The hash of what an approver is shown. A decision carries it; when anything shown has changed, it no longer matches. */
import { canonicalHash, type Json } from './canonical.ts';
import { type Entitlement, policyHash } from './entitlement.ts';

export interface Shown {
  readonly requestId: string;
  readonly requester: { readonly id: string; readonly name: string };
  readonly entitlements: readonly string[];
  readonly durationSeconds: number;
  readonly reason: string;
  readonly incident: string | null;
  readonly startAt: Date | null;
  readonly breakGlass: boolean;
  /** The hash of the policy and descriptions that the request carries. */
  readonly policyHash: string;
  /** The entitlements as the config has them now; a missing one is null. */
  readonly current: readonly (Entitlement | null)[];
}

/** 64 hex digits over every field of `shown`. */
export const seenHash = (shown: Shown): string =>
  canonicalHash({
    ...shown,
    startAt: shown.startAt?.toISOString() ?? null,
    current: shown.current.map((entitlement) => (entitlement ? policyHash(entitlement) : null)),
  } satisfies Json);

/** The first eight digits in two groups, as the page shows it: `7f3a 91c2`. */
export const shortSeen = (hash: string): string => `${hash.slice(0, 4)} ${hash.slice(4, 8)}`;
