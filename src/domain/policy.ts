/** Who may ask, who may decide, and whether enough of them have. Pure; the stricter answer always wins, and an empty list is nobody. */
import { durationInWords, formatDuration } from './duration.ts';
import type { ApprovalRule, Entitlement, People } from './entitlement.ts';
import { type LoginNeed, Refusal } from './errors.ts';

/** A person as the policy sees them. */
export interface Member {
  readonly id: string;
  readonly subject: string;
  readonly groups: readonly string[];
}

/** Whether the member is one of these people, by a group or by name. */
export const isOneOf = (people: People, member: Member): boolean =>
  people.subjects.includes(member.subject) || people.groups.some((group) => member.groups.includes(group));

/** Whether the policy lets this person ask for the entitlement, without break-glass. */
export const mayAsk = (entitlement: Entitlement, member: Member): boolean => isOneOf(entitlement.eligible, member);
/** Whether the policy lets this person open the entitlement by break-glass. */
export const mayBreakGlass = (entitlement: Entitlement, member: Member): boolean =>
  entitlement.breakGlass !== null && isOneOf(entitlement.breakGlass.eligible, member);

/** Whether some rule of some of these entitlements counts this person. The requester is for the caller to exclude. */
export const mayDecide = (entitlements: readonly Entitlement[], member: Member): boolean =>
  entitlements.some((entitlement) => entitlement.approval.some((rule) => isOneOf(rule.of, member)));

/** Whether some of these entitlements lets this person close a review. The holder is for the caller to exclude. */
export const mayReview = (entitlements: readonly Entitlement[], member: Member): boolean =>
  entitlements.some((entitlement) => isOneOf(entitlement.review.of, member));

/**
 * How many approvals each rule of one entitlement has. A person counts for one rule only, so rules are filled by a
 * maximum matching: someone in two groups is used where they are needed.
 */
export function fillRules(rules: readonly ApprovalRule[], approvers: readonly Member[]): number[] {
  const seats = rules.flatMap((rule, index) => Array.from({ length: rule.count }, () => index));
  const seatOf = new Map<string, number>();
  const holder: (Member | undefined)[] = seats.map(() => undefined);

  const place = (member: Member, tried: Set<number>): boolean => {
    for (const [seat, ruleIndex] of seats.entries()) {
      const rule = rules[ruleIndex];
      if (tried.has(seat) || !rule || !isOneOf(rule.of, member)) continue;
      tried.add(seat);
      const sitting = holder[seat];
      if (sitting && !place(sitting, tried)) continue;
      holder[seat] = member;
      seatOf.set(member.id, seat);
      return true;
    }
    return false;
  };
  for (const member of new Map(approvers.map((approver) => [approver.id, approver])).values()) place(member, new Set());

  const filled = rules.map(() => 0);
  for (const seat of seatOf.values()) {
    const rule = seats[seat];
    if (rule !== undefined) filled[rule] = (filled[rule] ?? 0) + 1;
  }
  return filled;
}

/** Whether these approvers satisfy every rule of every entitlement. An entitlement without rules is never satisfied. */
export const quorumMet = (entitlements: readonly Entitlement[], requesterId: string, approvers: readonly Member[]): boolean => {
  const others = approvers.filter((approver) => approver.id !== requesterId);
  return (
    entitlements.length > 0 &&
    entitlements.every((entitlement) => {
      const filled = fillRules(entitlement.approval, others);
      return entitlement.approval.length > 0 && entitlement.approval.every((rule, index) => (filled[index] ?? 0) >= rule.count);
    })
  );
};

export interface Asked {
  readonly entitlements: readonly Entitlement[];
  readonly durationSeconds: number;
  readonly breakGlass: boolean;
}

/** Throws why this person may not ask for this; returns nothing when they may. All or nothing. */
export function assertMayAsk(asked: Asked, member: Member): void {
  for (const entitlement of asked.entitlements) {
    if (asked.breakGlass && !entitlement.breakGlass)
      throw new Refusal('break_glass_not_offered', `${entitlement.name} cannot be opened by break-glass.`, { next: 'Ask for it without break-glass.' });
    const allowed = asked.breakGlass ? mayBreakGlass(entitlement, member) : mayAsk(entitlement, member);
    if (!allowed)
      throw new Refusal('not_eligible', `You may not ask for ${entitlement.name}${asked.breakGlass ? ' by break-glass' : ''}.`, {
        next: `${entitlement.owner} owns it and can change that.`,
      });
  }
  const { most, name } = longest(asked.entitlements, asked.breakGlass);
  if (asked.durationSeconds > most) {
    throw new Refusal(
      'duration_too_long',
      `The most for ${name}${asked.breakGlass ? ' by break-glass' : ''} is ${formatDuration(most)}; you asked for ${formatDuration(asked.durationSeconds)}.`,
      {
        next: `Ask for ${formatDuration(most)} or less.`,
      },
    );
  }
}

/** The shortest of the entitlements' limits, in seconds, and whose it is. */
export function longest(entitlements: readonly Entitlement[], breakGlass: boolean): { most: number; name: string } {
  let most = Number.POSITIVE_INFINITY;
  let name = '';
  for (const entitlement of entitlements) {
    const limit = breakGlass ? (entitlement.breakGlass?.maxDurationSeconds ?? 0) : entitlement.maxDurationSeconds;
    if (limit < most) {
      most = limit;
      name = entitlement.name;
    }
  }
  return { most, name };
}

/**
 * Why the rules of this entitlement can never be met, whoever is at work; undefined when they can. Groups are taken to
 * have members enough, so only rules that name nothing but people can be impossible.
 */
export function impossibleRule(entitlement: Entitlement): string | undefined {
  if (entitlement.approval.length === 0) return 'nobody can approve it: approval has no rule';
  const byName = entitlement.approval.filter((rule) => rule.of.groups.length === 0);
  for (const rule of byName) {
    const named = new Set(rule.of.subjects).size;
    if (named === 0) return 'nobody can approve it: a rule names no group and no person';
    if (rule.count > named) return `a rule needs ${rule.count} people and names ${named}`;
  }
  if (!canBeFilled(byName, undefined)) return 'its rules together need more people than they name, since a person counts once';
  const askers = entitlement.eligible.groups.length === 0 ? entitlement.eligible.subjects : [];
  if (askers.length > 0 && !askers.some((asker) => canBeFilled(byName, asker)))
    return 'only the requester themself could approve it, or must be one of those who approve';
  return undefined;
}

/** Whether the people whom these rules name are enough to meet them all without `requester`. */
function canBeFilled(rules: readonly ApprovalRule[], requester: string | undefined): boolean {
  const subjects = new Set(rules.flatMap((rule) => rule.of.subjects));
  if (requester !== undefined) subjects.delete(requester);
  const filled = fillRules(
    rules,
    [...subjects].map((subject) => ({ id: subject, subject, groups: [] })),
  );
  return rules.every((rule, index) => (filled[index] ?? 0) >= rule.count);
}

/** What somebody wants to do, as far as the freshness of their login goes. */
export type Act = 'ask' | 'break-glass' | 'decide';

/** What is known of a login when it is used. */
export interface LoginProof {
  readonly via: string;
  /** When the person last proved who they are, and how, as the identity provider said. */
  readonly authAt: Date;
  readonly acr: string | null;
  readonly groupsReadAt: Date;
}

/** Break-glass opens at once and without a second person, so it always needs a proof at most this old (RELIABILITY: 17). */
const breakGlassMaxAgeSeconds = 300;

/** The strictest login that any of these entitlements asks for. Decisions and break-glass rest on groups, and those must be fresh too. */
export function loginNeed(act: Act, entitlements: readonly Entitlement[], groupsMaxAgeSeconds: number): LoginNeed {
  const steps = entitlements.flatMap(({ stepUp }) => stepUp ?? []);
  const ages = [...steps.map((step) => step.maxAgeSeconds), ...(act === 'break-glass' ? [breakGlassMaxAgeSeconds] : [])];
  const acrValues = [...new Set(steps.flatMap(({ acr }) => acr ?? []))];
  return {
    ...(ages.length > 0 ? { maxAgeSeconds: Math.min(...ages) } : {}),
    ...(acrValues.length > 0 ? { acrValues } : {}),
    ...(act === 'ask' ? {} : { groupsMaxAgeSeconds }),
  };
}

/**
 * Why this login does not do for this act; undefined when it does. `now` is Postgres' clock. For decisions and
 * break-glass the caller has judged eligibility before, so that a stranger learns nothing here. Slack proves nothing:
 * what comes through it is as old as time.
 */
export function loginRefusal(act: Act, entitlements: readonly Entitlement[], proof: LoginProof, groupsMaxAgeSeconds: number, now: Date): Refusal | undefined {
  const need = loginNeed(act, entitlements, groupsMaxAgeSeconds);
  const slack = proof.via === 'slack';
  if (slack && act === 'decide') {
    if (!entitlements.every(({ slackDecision }) => slackDecision === 'allow' || slackDecision === 'allow-with-step-up'))
      return new Refusal('slack_may_not_decide', undefined, { next: 'Decide on the page of the request, or with halligan approve.' });
    if (entitlements.some(({ slackDecision }) => slackDecision === 'allow-with-step-up'))
      return stepUpRefusal({ ...need, maxAgeSeconds: Math.min(need.maxAgeSeconds ?? breakGlassMaxAgeSeconds, breakGlassMaxAgeSeconds) });
  }
  const lack = lackOf(need, slack ? { ...proof, authAt: new Date(0), acr: null } : proof, now);
  if (lack === undefined) return undefined;
  if (lack === 'proof') return stepUpRefusal(need);
  const { groupsMaxAgeSeconds: most = groupsMaxAgeSeconds } = need;
  return new Refusal('groups_stale', `Your groups were last read at the identity provider more than ${durationInWords(most)} ago.`, {
    next: 'Log in again: the identity provider usually asks nothing.',
    login: { groupsMaxAgeSeconds: most },
  });
}

/** What a login lacks of what is needed: the person's proof, or only fresh groups. A fresh proof brings fresh groups with it. */
export function lackOf(need: LoginNeed, proof: Pick<LoginProof, 'authAt' | 'acr' | 'groupsReadAt'>, now: Date): 'proof' | 'groups' | undefined {
  const { maxAgeSeconds, acrValues = [], groupsMaxAgeSeconds } = need;
  if (maxAgeSeconds !== undefined && olderThan(proof.authAt, maxAgeSeconds, now)) return 'proof';
  if (acrValues.some((acr) => acr !== proof.acr)) return 'proof';
  return groupsMaxAgeSeconds !== undefined && olderThan(proof.groupsReadAt, groupsMaxAgeSeconds, now) ? 'groups' : undefined;
}

/** A time that cannot be read counts as too old. */
const olderThan = (at: Date, seconds: number, now: Date): boolean => !(now.getTime() - at.getTime() <= seconds * 1_000);

function stepUpRefusal(need: LoginNeed): Refusal {
  const { maxAgeSeconds, acrValues = [] } = need;
  const wants = [
    ...(maxAgeSeconds === undefined ? [] : [`at most ${durationInWords(maxAgeSeconds)} old`]),
    ...(acrValues.length === 0 ? [] : [`of the class ${acrValues.join(' and ')}`]),
  ].join(' and ');
  const next =
    acrValues.length > 1
      ? 'No one login is of two classes: ask for the entitlements one by one.'
      : 'Log in again: prove to the identity provider that it is you.';
  return new Refusal('step_up_required', `This needs a login that is ${wants}.`, { next, login: need });
}
