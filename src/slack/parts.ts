/** What every part of the Slack surface gets, and who it is that acts through it. */
import type { Ctx, PersonActor } from '../commands/context.ts';
import { personByAlias } from '../db/read-models/aliases.ts';
import type { SlackApi } from './api.ts';
import type { RefusedCalls } from './refused.ts';

export interface SlackParts {
  readonly ctx: Ctx;
  readonly api: SlackApi;
  /** The one workspace that is listened to. */
  readonly workspace: string;
  readonly serverUrl: URL;
  readonly refused: RefusedCalls;
}

/** The address of one of our pages. */
export const pageUrl = ({ serverUrl }: Pick<SlackParts, 'serverUrl'>, path: string): string => new URL(path, serverUrl).href;

/**
 * The person behind a Slack account: by the link that they made themselves, by nothing else. What they may do comes from
 * their own row. A Slack session proves nothing of who sits there, so it counts as a login of the beginning of time.
 */
export async function actorOf({ ctx, workspace }: Pick<SlackParts, 'ctx' | 'workspace'>, account: string): Promise<PersonActor | undefined> {
  const person = await personByAlias(ctx.db, { kind: 'slack', workspace, account });
  return person && { ...person, via: 'slack', loginId: `slack:${workspace}:${account}`, authAt: new Date(0) };
}
