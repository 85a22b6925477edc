/** Where a message about a request goes: the ladder's places, with `approvers` made into people. */
import type { Transaction } from 'kysely';
import { sql } from 'kysely';
import type { Schema } from '../db/schema.ts';
import type { PolicySnapshot } from '../domain/entitlement.ts';
import { approvers, type RouteStep } from '../domain/notice.ts';
import { mayDecide, mayReview } from '../domain/policy.ts';
import type { ChannelName } from './channel.ts';

export interface Place {
  readonly channel: ChannelName;
  readonly address: string;
  readonly personId: string | null;
  /** Why nothing can be sent there, in words; null when it can. */
  readonly unreachable: string | null;
}

export interface Asked {
  readonly id: string;
  readonly person_id: string;
  readonly entitlements: readonly string[];
  readonly policy: readonly PolicySnapshot[];
  readonly approver_groups: readonly string[];
  readonly approver_subjects: readonly string[];
  readonly reviewer_groups: readonly string[];
  readonly reviewer_subjects: readonly string[];
}

/** One step of the ladder of all entitlements together. */
export interface Rung {
  readonly afterSeconds: number;
  readonly steps: readonly RouteStep[];
}

/** The ladders of these entitlements as one: steps with the same time are one rung, earliest first. */
export function ladderOf(routes: ReadonlyMap<string, readonly RouteStep[]>, entitlements: readonly string[]): Rung[] {
  const steps = entitlements.flatMap((name) => routes.get(name) ?? []);
  const times = [...new Set(steps.map((step) => step.afterSeconds))].sort((a, b) => a - b);
  return times.map((afterSeconds) => ({ afterSeconds, steps: steps.filter((step) => step.afterSeconds === afterSeconds) }));
}

/** The places of these steps, each once. `reviewersToo`: whoever owes the review counts among `approvers`. */
export async function placesOf(
  trx: Transaction<Schema>,
  workspace: string | undefined,
  request: Asked,
  steps: readonly RouteStep[],
  reviewersToo: boolean,
): Promise<Place[]> {
  const places: Place[] = [];
  const named = (channel: ChannelName, address: string) => places.push({ channel, address, personId: null, unreachable: null });
  for (const step of steps) {
    for (const address of step.slack) if (address !== approvers) named('slack', address);
    for (const address of step.email) if (address !== approvers) named('email', address);
    for (const address of step.webhooks) named('webhook', address);
  }
  const toEach = { slack: steps.some((step) => step.slack.includes(approvers)), email: steps.some((step) => step.email.includes(approvers)) };
  if (toEach.slack || toEach.email)
    for (const person of await decidersOf(trx, workspace, request, reviewersToo)) {
      if (toEach.slack) places.push(slackOf(person));
      if (toEach.email) places.push(mailOf(person));
    }
  const seen = new Set<string>();
  return places.filter(({ channel, address }) => !seen.has(`${channel} ${address}`) && seen.add(`${channel} ${address}`));
}

interface Reached {
  readonly id: string;
  readonly email: string | null;
  readonly account: string | null;
}

const slackOf = ({ id, account }: Reached): Place => ({
  channel: 'slack',
  address: account ?? id,
  personId: id,
  unreachable: account ? null : 'has linked no Slack account',
});
const mailOf = ({ id, email }: Reached): Place => ({
  channel: 'email',
  address: email ?? id,
  personId: id,
  unreachable: email ? null : 'the identity provider gives no mail address',
});

/** The holder's own places: their Slack account and their mail address, where there are any. Nobody is told that they have none. */
export async function holderPlaces(
  trx: Transaction<Schema>,
  channels: { readonly workspace: string | undefined; readonly mail: boolean },
  personId: string,
): Promise<Place[]> {
  const [person] = await people(trx, channels.workspace).where('person.id', '=', personId).execute();
  if (!person) return [];
  const slack = channels.workspace !== undefined && person.account ? [slackOf(person)] : [];
  return channels.mail && person.email ? [...slack, mailOf(person)] : slack;
}

const people = (trx: Transaction<Schema>, workspace: string | undefined) =>
  trx
    .selectFrom('person')
    .leftJoin('alias', (join) =>
      join
        .onRef('alias.person_id', '=', 'person.id')
        .on('alias.kind', '=', 'slack')
        .on('alias.workspace', '=', workspace ?? ''),
    )
    .select(['person.id', 'person.subject', 'person.groups', 'person.email', 'alias.account']);

/** Whoever some rule of the request counts and who has logged in before, without the requester; at most 200. */
async function decidersOf(trx: Transaction<Schema>, workspace: string | undefined, request: Asked, reviewersToo: boolean): Promise<Reached[]> {
  const groups = [...request.approver_groups, ...(reviewersToo ? request.reviewer_groups : [])];
  const subjects = [...request.approver_subjects, ...(reviewersToo ? request.reviewer_subjects : [])];
  const asked = request.policy.map((snapshot) => snapshot.entitlement);
  const found = await people(trx, workspace)
    .where(sql<boolean>`(person.groups && ${sql.val(groups)}::text[] OR person.subject = ANY (${sql.val(subjects)}::text[]))`)
    .where('person.id', '<>', request.person_id)
    .orderBy('person.id')
    .limit(200)
    .execute();
  return found.filter((person) => mayDecide(asked, person) || (reviewersToo && mayReview(asked, person)));
}
