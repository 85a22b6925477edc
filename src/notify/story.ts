/** What a message may say, read when it is sent. It comes through the read models alone, which hold no secret. */
import type { Db } from '../db/pool.ts';
import { requestForStory } from '../db/read-models/requests.ts';
import type { Entitlement } from '../domain/entitlement.ts';
import type { Story } from './channel.ts';

/** The story of one notice as it stands now; undefined when the notice is not there. */
export async function readStory(db: Db, loaded: ReadonlyMap<string, Entitlement>, serverUrl: URL, noticeId: string): Promise<Story | undefined> {
  const notice = await db.selectFrom('notice').selectAll().where('id', '=', noticeId).executeTakeFirst();
  if (!notice) return undefined;
  const request = await requestForStory(db, loaded, notice.request_id);
  return {
    noticeId,
    type: notice.type,
    at: notice.type === 'grant.ends-soon' ? notice.due_at : notice.created_at,
    grantId: notice.grant_id,
    leaseId: notice.lease_id,
    request,
    url: new URL(`/requests/${request.id}`, serverUrl).href,
  };
}
