/** What `halligan doctor` says of Slack: whether our token is taken, in the workspace that the config names, with the scopes that are needed. */
import type { SlackConfig } from '../config/tell.ts';
import { type Channel, type ChannelTrouble, DeliveryFault } from '../notify/channel.ts';
import { type SlackApi, SlackFault, slackApi, tokenFaults } from './api.ts';

/** The least that Halligan needs, as `deploy/slack/manifest.yaml` asks for it. */
export const neededScopes = ['chat:write', 'im:write', 'commands'] as const;

/** Asks Slack who we are; sends nothing. */
export async function checkSlack(api: SlackApi, workspace: string): Promise<ChannelTrouble[]> {
  const trouble = (message: string, next: string): ChannelTrouble => ({ place: 'Slack', message, next });
  try {
    const { team_id: team, response_metadata: meta } = await api.call('auth.test', {});
    const found: ChannelTrouble[] = [];
    if (team !== workspace)
      found.push(
        trouble(
          `the bot token belongs to the workspace ${team ?? 'unknown'}, and the config names ${workspace}`,
          'Correct slack.workspace, or install the app in the right one.',
        ),
      );
    const missing = meta?.scopes ? neededScopes.filter((scope) => !meta.scopes?.includes(scope)) : [];
    if (missing.length > 0)
      found.push(trouble(`the app lacks ${missing.join(', ')}`, 'Give it the scopes of deploy/slack/manifest.yaml and install it again.'));
    return found;
  } catch (error) {
    const { code, message } = error instanceof SlackFault ? error : new SlackFault('no_answer', (error as Error).message);
    return [
      trouble(
        message,
        tokenFaults.has(code)
          ? 'docs/slack.md says where the token is found.'
          : 'Is slack.apiUrl reachable from here? Messages wait meanwhile, and everything else goes on.',
      ),
    ];
  }
}

/** Slack for the doctor alone. */
export function slackToCheck(config: SlackConfig): Channel {
  return {
    name: 'slack',
    send: () => Promise.reject(new DeliveryFault('nothing is sent from here', { final: true })),
    check: () => checkSlack(slackApi(config), config.workspace),
  };
}
