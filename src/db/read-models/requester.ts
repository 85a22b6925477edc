/** What an approver should know of the person who asks. */
import { sql } from 'kysely';
import type { Db } from '../pool.ts';

export interface RequesterView {
  /** What the person holds at this moment. */
  readonly holds: readonly { readonly requestId: string; readonly entitlements: readonly string[]; readonly breakGlass: boolean }[];
  /** Grants of the last 90 days, and how their reviews ended. */
  readonly grants: number;
  readonly breakGlass: number;
  readonly reviews: Readonly<Record<string, number>>;
}

export async function readRequester(db: Db, personId: string): Promise<RequesterView> {
  const [holds, counts, reviews] = await Promise.all([
    db
      .selectFrom('access_grant')
      .innerJoin('request', 'request.id', 'access_grant.request_id')
      .select(['request.id as requestId', 'request.entitlements', 'access_grant.break_glass as breakGlass'])
      .where('access_grant.person_id', '=', personId)
      .where('access_grant.state', 'in', ['active', 'ending'])
      .orderBy('access_grant.id', 'desc')
      .limit(8)
      .execute(),
    db
      .selectFrom('access_grant')
      .select([sql<number>`count(*)::int`.as('grants'), sql<number>`count(*) FILTER (WHERE break_glass)::int`.as('breakGlass')])
      .where('person_id', '=', personId)
      .where('starts_at', '>', sql<Date>`now() - interval '90 days'`)
      .executeTakeFirstOrThrow(),
    db
      .selectFrom('review')
      .select([sql<string>`coalesce(verdict, 'still due')`.as('verdict'), sql<number>`count(*)::int`.as('count')])
      .where('person_id', '=', personId)
      .where('created_at', '>', sql<Date>`now() - interval '90 days'`)
      .groupBy(sql`1`)
      .execute(),
  ]);
  return { holds, ...counts, reviews: Object.fromEntries(reviews.map(({ verdict, count }) => [verdict, count])) };
}
