/** `/halligan`: with `link CODE` it links the account of whoever types it; with nothing it opens the dialog to ask. The answer is seen by them alone. */
import { type Limit, limit } from '../auth/limits.ts';
import { linkAlias } from '../commands/link-alias.ts';
import { isRefusal } from '../domain/errors.ts';
import { visibleLine } from '../domain/hidden-text.ts';
import { refusalInWords } from './answer.ts';
import { type Block, buttons, fallback, inert, pageButton, paragraph } from './blocks.ts';
import { pageUrl, type SlackParts } from './parts.ts';

/** What a command is answered with at once. */
export interface CommandAnswer {
  readonly response_type: 'ephemeral';
  readonly text: string;
  readonly blocks: Block[];
}

/** Codes that are tried, for each account and for all together: 20^12 of them are far out of reach at this pace. */
export const linkLimits = (): { readonly each: Limit; readonly all: Limit } => ({ each: limit(10, 600), all: limit(300, 600) });

const answer = (text: string, url?: string): CommandAnswer => ({
  response_type: 'ephemeral',
  text: fallback(text),
  blocks: [paragraph(text), ...(url === undefined ? [] : [buttons(pageButton(url, 'Your accounts'))])],
  ...inert,
});

export const helpAnswer = (parts: SlackParts): CommandAnswer =>
  answer(
    '/halligan opens the dialog to ask for access. /halligan link CODE links this Slack account to you, with the code from the page of your accounts.',
    pageUrl(parts, '/accounts'),
  );

/** Links whoever typed the code. */
export async function linkAccount(parts: SlackParts, limits: ReturnType<typeof linkLimits>, user: string, code: string): Promise<CommandAnswer> {
  const accounts = pageUrl(parts, '/accounts');
  try {
    await limits.each(user);
    await limits.all('all');
    const { name } = await linkAlias(parts.ctx, { kind: 'slack', workspace: parts.workspace, account: user }, code);
    return answer(
      `Linked: here you are ${visibleLine(name)} to Halligan from now on. If that is not you, unlink it on the page of your accounts now.`,
      accounts,
    );
  } catch (error) {
    if (!isRefusal(error)) throw error;
    if (isRefusal(error, 'link_code_invalid')) await parts.refused.note('link-code', { account: user, code: error.code });
    return answer(refusalInWords(error), accounts);
  }
}
