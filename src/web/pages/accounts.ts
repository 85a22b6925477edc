/** Your accounts: the Slack account that is you, a code to link one, and how to unlink it. */
import { linkCodeSeconds, newLinkCode, unlinkAlias } from '../../commands/link-alias.ts';
import { type AliasView, aliasesOf } from '../../db/read-models/aliases.ts';
import { durationInWords } from '../../domain/duration.ts';
import { isRefusal, Refusal } from '../../domain/errors.ts';
import { html, type Part } from '../html.ts';
import { csrfField } from '../layout.ts';
import { goTo, send, type View } from '../view.ts';
import { relative, time } from '../words.ts';
import { problem } from './ask.ts';

interface Extra {
  readonly code?: { readonly code: string; readonly expiresAt: Date };
  readonly refusal?: Refusal;
}

/** `workspace`: the Slack workspace that Halligan listens to; undefined where Slack is not set up. */
export async function accountsPage(view: View, workspace: string | undefined, extra: Extra = {}): Promise<void> {
  const accounts = await aliasesOf(view.ctx.db, view.actor.id);
  const linked = accounts.some((account) => account.workspace === workspace);
  await send(view, {
    title: 'Your accounts',
    heading: linked ? 'Slack knows who you are' : accounts.length > 0 ? 'You have linked an account elsewhere' : 'No other account is linked to you',
    sub: 'What you do from a linked account counts as done by you. Nobody is recognised by a mail address.',
    body: [
      problem(extra.refusal),
      extra.code && codeNote(extra.code),
      accounts.length > 0 && table(view, accounts),
      !linked &&
        !extra.code &&
        (workspace ? linkForm(view) : html`<p class="empty">Slack is not set up here. Whoever runs Halligan can do that in the config.</p>`),
    ],
    ...(extra.refusal ? { status: 422 } : {}),
  });
}

const linkForm = (view: View): Part => html`<h2>Link your Slack account</h2>
<p>You get a code here, good for ${durationInWords(linkCodeSeconds)} and for one use. Type it in Slack, as <code>/halligan link CODE</code>.</p>
<form method="post" action="/accounts/link-code">${csrfField(view.csrf)}<div class="actions"><button class="first">Make a code</button></div></form>`;

const codeNote = ({ code, expiresAt }: NonNullable<Extra['code']>): Part =>
  html`<div class="note glass" role="status"><strong>Type this in Slack yourself:</strong> <code>/halligan link ${code}</code><br>Good until ${time(expiresAt, new Date())}, once. Whoever types it is you to Halligan from then on: give it to nobody, and type no code that somebody else gave you. When it is done, <a href="/accounts">look at this page again</a>.</div>`;

const table = (view: View, accounts: readonly AliasView[]): Part =>
  html`<table><thead><tr><th>Account</th><th>Linked</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${accounts.map(
    ({
      workspace,
      account,
      linkedAt,
    }) => html`<tr><td>Slack, user <code>${account}</code><span class="under">workspace <code>${workspace}</code></span></td><td>${relative(linkedAt, new Date())}</td>
<td class="act"><form class="inline" method="post" action="/accounts/unlink">${csrfField(view.csrf)}<input type="hidden" name="workspace" value="${workspace}"><input type="hidden" name="account" value="${account}"><button class="end">Unlink</button></form></td></tr>`,
  )}</tbody></table>`;

/** Shows a new code. The page that shows it is the answer to the form itself, and is not kept. */
export async function linkCodeSubmit(view: View, workspace: string | undefined): Promise<void> {
  if (!workspace) throw new Refusal('not_found', 'Slack is not set up here.');
  try {
    await accountsPage(view, workspace, { code: await newLinkCode(view.ctx, view.actor) });
  } catch (error) {
    if (!isRefusal(error)) throw error;
    await accountsPage(view, workspace, { refusal: error });
  }
}

export async function unlinkSubmit(view: View): Promise<void> {
  const { workspace, account } = (view.request.body ?? {}) as Record<string, unknown>;
  await unlinkAlias(view.ctx, view.actor, { kind: 'slack', workspace: String(workspace), account: String(account) });
  goTo(view, '/accounts', 'unlinked');
}
