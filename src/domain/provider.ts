/**
 * What a provider must do. A provider is the code for one *kind* of target; `connect` gives one *target*.
 *
 * The contract, which `test/support/provider-contract.ts` runs against the real thing:
 * - issuing twice under one external name leaves one credential (the second answer's secret is the one that works);
 * - revoking twice, in parallel, or what is not there, succeeds;
 * - `revoke` cuts access in a commit of its own before it cleans up, and returns only when the target, read again, no longer has the object;
 * - a crash between create and record is found by `inspect` under the external name, and by `sweep`;
 * - the credential's end at the target is the grant's end, set when it is made;
 * - `another`, where there is one, makes a further credential of a lease that is there, beside the earlier ones; one `revoke` ends all of them;
 * - no error, and nothing but `Issued.secret`, carries a secret;
 * - every call ends by its `signal`.
 */
import type { z } from 'zod';
import type { Json } from './canonical.ts';
import { type ErrorCode, Refusal } from './errors.ts';

/** How to name one lease at its target. All of it is public and is written into the target as our marker. */
export interface LeaseRef {
  readonly leaseId: string;
  /** Deterministic, committed before anything is created: `hg_` and the lease id. */
  readonly externalName: string;
  /** The public name that was recorded for the lease, where there is one. */
  readonly handle?: string | null;
  /** The `grant` block that the lease was made with, where the caller knows it. A target that keeps no object needs it to know where to end a lease. */
  readonly grant?: unknown;
  /** The end that was set when the lease was made, where the caller knows it. */
  readonly endsAt?: Date;
}

export interface LeaseSpec extends LeaseRef {
  readonly grantId: string;
  /** Who it is for, in words that may stand at the target (a comment, a tag). */
  readonly person: string;
  /** The holder's subject at the identity provider, for targets that know people by it. */
  readonly subject?: string;
  /** Nothing was asked of the target under this name before, so it need not look for an earlier credential. */
  readonly first?: true;
  /** The end of the grant. The credential ends there by itself, with Halligan dead. */
  readonly endsAt: Date;
  /** The entitlement's `grant` block, as `grantSchema` parsed it. */
  readonly grant: unknown;
}

/** What the holder sees, once. `secret` is never stored or logged; everything else may be. */
export interface Issued {
  /** The public name of the credential at the target: a user name, an access key id, an accessor. */
  readonly handle: string;
  /** The end as the target itself gave it back. */
  readonly expiresAt: Date;
  /** Where to connect, in the kind's own public words: host, port, database, user. */
  readonly connection: Readonly<Record<string, string>>;
  readonly secret: Readonly<Record<string, string>>;
}

/** What the target holds under a name, read now. `openSessions` is null where the target cannot tell. */
export type Inspected =
  | { readonly state: 'absent' }
  | { readonly state: 'present'; readonly usable: boolean; readonly expiresAt: Date | null; readonly openSessions: number | null };

/** Proof that a lease is gone. Times are the target's own. */
export interface Gone {
  /** When new logins were refused and open sessions were cut; null when the object was already absent. */
  readonly cutAt: Date | null;
  readonly sessionsCut: number;
  /** Things of the holder that were kept or dropped, in words for the audit log: `3 objects reassigned to halligan_leftovers`. */
  readonly notes: readonly string[];
}

/** What a role opens, in the target's own terms, for an approver's eyes. */
export interface Description {
  /** One line: `a login in orders_ro: SELECT on 14 tables of orders`. */
  readonly summary: string;
  /** The list behind the line, shortened to at most 200 lines. */
  readonly details: readonly string[];
}

/** How long after a grant's end something can still work, in seconds, or null where there is no bound. */
export interface Limits {
  /** A new login. */
  readonly newLogin: { readonly alive: number; readonly dead: number | null };
  /** A session already open. */
  readonly openSession: { readonly alive: number; readonly dead: number | null };
  /** What is open already and stays so although access is cut, in words; left out where there is nothing of the kind. */
  readonly staysOpen?: string;
}

/** One thing wrong with a target, in words with what to do; found at start and shown by the claim too. */
export interface TargetFault {
  readonly message: string;
  readonly next: string;
  /** It works, but should not stay so. */
  readonly warning?: true;
}

/** One target, connected. Every call throws `ProviderError` on failure and nothing else. */
export interface Target {
  readonly name: string;
  readonly kind: string;
  readonly limits: Limits;
  /** The limits of one `grant` block, where they are narrower than those of the target as a whole. */
  limitsFor?(grant: unknown): Limits;
  /** The target keeps no list of what it issued: `sweep` names nothing, and what it does not name has not vanished. */
  readonly unlisted?: boolean;
  /** Rights, reachability and the existence of what these `grants` (parsed `grant` blocks) open. An empty list is good news. */
  check(grants: readonly unknown[], signal: AbortSignal): Promise<TargetFault[]>;
  describe(grant: unknown, signal: AbortSignal): Promise<Description>;
  issue(spec: LeaseSpec, signal: AbortSignal): Promise<Issued>;
  /**
   * One more credential of a lease that is live: under the same external name, beside the earlier ones, ended with them by the
   * same `revoke`, and never living longer than the grant. It makes no lease: when what the lease holds at the target is no
   * longer there, or no longer what it was, it throws with `leaseGone`. A target that gives one credential at a time leaves it
   * out; a new claim then replaces the lease.
   */
  another?(spec: LeaseSpec, signal: AbortSignal): Promise<Issued>;
  /** This `grant` block opens the login that the holder has at the target already: no secret is made. */
  opensOwnLogin?(grant: unknown): boolean;
  inspect(ref: LeaseRef, signal: AbortSignal): Promise<Inspected>;
  /**
   * What `revoke` does first, and nothing else: no new session, and none that is open; null when the object is not there. For when
   * many end at once: all are cut before anything is tidied. A target where cutting is not a step of its own leaves it out.
   */
  cut?(ref: LeaseRef, signal: AbortSignal): Promise<{ at: Date; sessionsCut: number } | null>;
  revoke(ref: LeaseRef, signal: AbortSignal): Promise<Gone>;
  /** Every object that bears our marker, whichever process made it. */
  sweep(signal: AbortSignal): Promise<LeaseRef[]>;
  close(): Promise<void>;
}

/** One target of the loaded config and what its entitlements open there, for `halligan print`. */
export interface PrintTarget {
  readonly name: string;
  readonly config: unknown;
  readonly grants: readonly { readonly entitlement: string; readonly grant: unknown; readonly maxDurationSeconds: number }[];
}

export interface Provider {
  readonly kind: string;
  /** How many leases a worker ends at once at a target of this kind, unless its config says; left out where each takes calls of its own. */
  readonly endsAtOnce?: number;
  /** What `halligan print <name>` says for targets of this kind: the least rights that the loaded config needs, ready to be applied. By name. */
  readonly prints?: Readonly<Record<string, (targets: readonly PrintTarget[]) => string>>;
  /** The `targets.<name>` block of the config, without `kind`. Strict. */
  readonly targetSchema: z.ZodType;
  /** The `entitlements.<name>.grant` block. Strict. */
  readonly grantSchema: z.ZodType;
  connect(name: string, config: unknown, options: TargetOptions): Target;
  /** The grant block in one public line, for pages that must not wait for the target: `role orders_ro`. */
  grantInWords(grant: unknown): string;
}

export interface TargetOptions {
  /** Reads a secret named by the config, each time it is needed, so that a rotated file is picked up. */
  readSecret(ref: { file: string } | { env: string }): Promise<string>;
  /** Hears of what will hinder a claim before anybody makes one, such as Halligan's own login being lost. Safe to log; `code` is stable. */
  warn?(code: string, message: string): void;
}

/** A target's failure. `message` is safe to show and to store. */
export class ProviderError extends Refusal {
  /** Set when access was cut although clean-up failed. */
  readonly cut: { at: Date; sessionsCut: number } | undefined;
  /** True when the target certainly made nothing. */
  readonly nothingMade: boolean;
  /** When trying again makes sense and not before: the target asked for it, or what was done is only proven then. */
  readonly retryAt: Date | undefined;
  /** Nothing went wrong: all is done, and what is missing is the time until it is proven. */
  readonly pending: boolean;
  /** Of `another`: what the lease holds at the target is not there as it was made, so the lease is over. */
  readonly leaseGone: boolean;
  constructor(
    code: Extract<ErrorCode, `target_${string}`>,
    message: string,
    more: { next?: string; cut?: { at: Date; sessionsCut: number }; nothingMade?: boolean; retryAt?: Date; pending?: boolean; leaseGone?: boolean } = {},
  ) {
    super(code, message, more.next === undefined ? {} : { next: more.next });
    this.name = 'ProviderError';
    this.cut = more.cut;
    this.nothingMade = more.nothingMade ?? false;
    this.retryAt = more.retryAt;
    this.pending = more.pending ?? false;
    this.leaseGone = more.leaseGone ?? false;
  }
}

/** Facts that may stand in an audit event. */
export type PublicFacts = { readonly [key: string]: Json };
