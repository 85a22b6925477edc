/** The home tab: what is open for me and until when, what waits for my decision, which reviews I owe. Read when it is opened. */
import type { types } from '@slack/bolt';
import type { PersonActor } from '../commands/context.ts';
import { listGrants } from '../db/read-models/grants.ts';
import { listRequests } from '../db/read-models/requests.ts';
import { listReviews } from '../db/read-models/reviews.ts';
import { utc } from '../notify/words.ts';
import { howToLink } from './answer.ts';
import { type Block, buttons, cut, divider, factList, header, pageButton, paragraph, small } from './blocks.ts';
import { actorOf, pageUrl, type SlackParts } from './parts.ts';

const most = 8;

/** Shows the home of this account anew. */
export async function publishHome(parts: SlackParts, user: string): Promise<void> {
  const actor = await actorOf(parts, user);
  const blocks = actor ? await homeOf(parts, actor) : [paragraph(howToLink(parts)), buttons(pageButton(pageUrl(parts, '/accounts'), 'Link your account'))];
  const view: types.HomeView = { type: 'home', blocks };
  await parts.api.call('views.publish', { user_id: user, view });
}

async function homeOf(parts: SlackParts, actor: PersonActor): Promise<Block[]> {
  const { ctx } = parts;
  const [grants, pending, waiting, reviews] = await Promise.all([
    listGrants(ctx.db, ctx.policy, actor, { state: 'open', mine: true }),
    listRequests(ctx.db, ctx.policy, ctx.policy.entitlements, actor, { mine: true, state: 'pending' }),
    listRequests(ctx.db, ctx.policy, ctx.policy.entitlements, actor, { toDecide: true }),
    listReviews(ctx.db, ctx.policy, actor, { state: 'due' }),
  ]);
  const owed = reviews.items.filter((review) => review.mayClose);
  const request = (id: string) => pageUrl(parts, `/requests/${id}`);
  return [
    header('Your access'),
    ...listOf(grants.items, 'Nothing is open for you.', (grant) => [
      factList([
        {
          label: grant.entitlements.join(', '),
          value: grant.state === 'active' ? `until ${utc(grant.endsAt)}` : grant.state === 'scheduled' ? `opens ${utc(grant.startsAt)}` : 'being ended',
        },
      ]),
      buttons(pageButton(request(grant.requestId), grant.state === 'active' ? 'Use it or give it back' : 'Open its page')),
    ]),
    ...pending.items
      .slice(0, most)
      .flatMap((one) => [paragraph(`You wait for a decision on ${namesOf(one)}, until ${utc(one.lapsesAt)}.`), buttons(pageButton(request(one.id)))]),
    buttons({ action: 'ask', text: 'Ask for access…', style: 'primary' }),
    divider(),
    header('Waiting for your decision'),
    ...listOf(waiting.items, 'Nothing waits for you.', (one) => [
      factList([
        { label: one.person.name, value: `${namesOf(one)} for ${one.durationInWords}, decide by ${utc(one.lapsesAt)}` },
        { label: 'Why', value: cut(one.reason, 300) },
      ]),
      buttons(pageButton(request(one.id), 'Look and decide')),
    ]),
    divider(),
    header('Reviews you owe'),
    ...listOf(owed, 'None.', (review) => [
      factList([{ label: review.person.name, value: `${review.entitlements.join(', ')}, due ${utc(review.dueAt)}${review.overdue ? ', overdue' : ''}` }]),
      buttons(pageButton(pageUrl(parts, `/reviews#${review.id}`), 'Review it')),
    ]),
    small(`Read ${utc(new Date())}. Open this tab again for what is true then.`),
  ];
}

const namesOf = ({ entitlements }: { entitlements: readonly { readonly name: string }[] }): string => entitlements.map(({ name }) => name).join(', ');

/** At most eight, and how many there are more. */
function listOf<T>(items: readonly T[], none: string, blocks: (item: T) => Block[]): Block[] {
  if (items.length === 0) return [paragraph(none)];
  const shown = items.slice(0, most).flatMap(blocks);
  return items.length > most ? [...shown, small(`and ${items.length - most} more, on its page`)] : shown;
}
