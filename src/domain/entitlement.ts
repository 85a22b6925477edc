/** What may be asked for, and the words that say so. An entitlement lives in the config; requests carry a copy. */
import { canonicalHash, type Json } from './canonical.ts';
import { durationInWords } from './duration.ts';
import type { Description } from './provider.ts';

/** Some people: members of any of these groups, and these subjects of the identity provider. Both empty means nobody. */
export interface People {
  readonly groups: readonly string[];
  readonly subjects: readonly string[];
}

/** `count` distinct people out of `of` must approve. */
export interface ApprovalRule {
  readonly of: People;
  readonly count: number;
}

export interface Entitlement {
  readonly name: string;
  /** What it opens, in the owner's words: `read the orders database`. */
  readonly opens: string;
  readonly target: string;
  /** The provider's kind, from the target. */
  readonly kind: string;
  /** The provider's `grant` block, parsed. */
  readonly grant: Json;
  /** The grant block in the provider's words: `role orders_ro`. */
  readonly grantInWords: string;
  readonly owner: string;
  readonly eligible: People;
  readonly approval: readonly ApprovalRule[];
  readonly maxDurationSeconds: number;
  /** How long a request waits for a decision before it lapses. */
  readonly decideWithinSeconds: number;
  readonly breakGlass: { readonly eligible: People; readonly maxDurationSeconds: number } | null;
  readonly review: { readonly of: People; readonly withinSeconds: number };
  /** How fresh a login must be to ask for it, to decide on it and to break its glass. Left out: any login that still lasts, five minutes for break-glass. */
  readonly stepUp?: StepUp;
  /** What Slack may do about a request: only tell, decide, or decide after a fresh login. Left out: only tell. */
  readonly slackDecision?: SlackDecision;
}

/** A proof of who somebody is, as the identity provider gives it (OpenID Connect `auth_time` and `acr`). */
export interface StepUp {
  /** The most seconds since the person last proved who they are. */
  readonly maxAgeSeconds: number;
  /** The class of proof that the provider must name, such as one that used a second factor. */
  readonly acr?: string;
}

export type SlackDecision = 'notify' | 'allow' | 'allow-with-step-up';

/** What a request keeps of an entitlement: the policy as it was, and what it opened at the target, or why that could not be read. */
export interface PolicySnapshot {
  readonly entitlement: Entitlement;
  readonly described: Description | { readonly unreadable: string };
}

/** The version of a policy: equal hashes decide equally. */
export const policyHash = (value: Entitlement | readonly PolicySnapshot[]): string => canonicalHash(value as unknown as Json);

/** `members of oncall`, `lead-1 or members of leads`, `nobody`. */
export function peopleInWords(people: People): string {
  const parts = [...people.subjects, ...(people.groups.length > 0 ? [`members of ${people.groups.join(' or ')}`] : [])];
  return parts.length > 0 ? parts.join(' or ') : 'nobody';
}

/** The policy in sentences, for a person who is about to ask. */
export function policyInWords(entitlement: Entitlement): string[] {
  const rules = entitlement.approval.map((rule) => `${rule.count} of ${peopleInWords(rule.of)}`);
  const lines = [
    `For ${peopleInWords(entitlement.eligible)}, at most ${durationInWords(entitlement.maxDurationSeconds)}.`,
    rules.length > 0
      ? `${rules.join(', and ')} must approve within ${durationInWords(entitlement.decideWithinSeconds)}. Nobody decides on their own request.`
      : 'Nobody can approve it.',
  ];
  if (entitlement.breakGlass) {
    lines.push(
      `In an emergency ${peopleInWords(entitlement.breakGlass.eligible)} may break the glass: it opens at once for at most ${durationInWords(entitlement.breakGlass.maxDurationSeconds)}, ` +
        `and ${peopleInWords(entitlement.review.of)} must review it within ${durationInWords(entitlement.review.withinSeconds)}.`,
    );
  }
  return lines;
}
