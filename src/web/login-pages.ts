/** The pages around a login: log in, let a terminal in (by link or by code), and the list of one's logins. */
import { type Html, html, type Part, personText } from './html.ts';
import { csrfField, page } from './layout.ts';

/** Who looks, and the token their forms carry. */
export interface Viewer {
  readonly actor: { readonly name: string };
  readonly csrf: string;
}

export interface LoginView {
  readonly returnTo: string;
  readonly provider: string;
  /** What to say after a login has ended, with the provider's own logout page when it has one. */
  readonly loggedOut?: { readonly providerLogout: string | undefined } | undefined;
  /** What the login is wished to be: parameters that go through the form unchanged. */
  readonly wish?: Readonly<Record<string, string>>;
  /** Who is logged in already and has to prove it again, and why. */
  readonly again?: { readonly name: string; readonly csrf: string; readonly why: string } | undefined;
}

/** Before a login, and where somebody who is logged in has to prove it again. */
export const loginPage = (view: LoginView): string => (view.again ? loginAgainPage(view, view.again) : firstLoginPage(view));

const loginAgainPage = (view: LoginView, { name, csrf, why }: NonNullable<LoginView['again']>): string =>
  page({
    title: 'Prove that it is you',
    heading: html`Prove once more that you are ${personText(name)}.`,
    sub: html`${why} You do that at ${view.provider}; then you come back to where you were. What you typed is kept for 15 minutes. Nothing has been done yet.`,
    actor: { name },
    csrf,
    body: html`<form method="post" action="/login">${hiddenFields({ returnTo: view.returnTo, ...view.wish })}
<div class="actions"><button class="first">Go to ${view.provider}</button> <a class="btn" href="/">Leave it</a></div></form>`,
  });

const firstLoginPage = (view: LoginView): string =>
  page({
    title: 'Log in',
    heading: view.loggedOut ? 'You are logged out.' : 'Log in to see and ask for access.',
    sub: view.loggedOut
      ? html`This browser's session has ended. Terminals stay logged in until you end them on the page of your logins.`
      : html`You prove who you are at ${view.provider}; Halligan never sees a password.`,
    body: html`<form method="post" action="/login">${hiddenFields({ returnTo: view.returnTo, ...view.wish })}
<div class="actions"><button class="first">${view.loggedOut ? 'Log in again' : 'Log in'}</button>${
      view.loggedOut?.providerLogout ? html` <a href="${view.loggedOut.providerLogout}">Log out at ${view.provider} too</a>` : ''
    }</div></form>`,
  });

/** A terminal on this machine asks to be logged in. `fields` go through the form unchanged. */
export const cliLoginPage = (viewer: Viewer, view: { label: string; port: string; fields: Readonly<Record<string, string>> }): string =>
  page({
    title: 'Log in a terminal',
    heading: html`Log in the terminal “${personText(view.label)}” as ${personText(viewer.actor.name)}?`,
    sub: html`It listens on port ${view.port} of this machine. It will be able to do what you can, for at most 12 hours; you can end it on the page of your <a href="/logins">logins</a>.`,
    ...viewer,
    body: html`${warning(html`Only go on when you have just run <code>halligan login</code> yourself, on this machine.`)}
<form method="post" action="/login/cli">${csrfField(viewer.csrf)}${hiddenFields(view.fields)}
<div class="actions"><button class="first" name="decision" value="confirm">Log the terminal in</button><button name="decision" value="deny">Not me</button></div></form>`,
  });

/** Where the code that a terminal shows is typed in. */
export const deviceCodePage = (viewer: Viewer, view: { userCode: string; fault?: string | undefined }): string =>
  page({
    title: 'Log in a terminal by code',
    heading: 'Which code does your terminal show?',
    sub: 'Eight letters, from a terminal that has no browser beside it.',
    ...viewer,
    body: html`${view.fault ? html`<div class="note over" role="alert"><strong>▲</strong> ${view.fault}</div>` : ''}
<form method="post" action="/device">${csrfField(viewer.csrf)}<label for="user_code">Code</label>
<input id="user_code" name="user_code" value="${view.userCode}" maxlength="12" placeholder="BCDF-GHJK" autocomplete="off" autocapitalize="characters" spellcheck="false" required autofocus>
<div class="actions"><button class="first">Go on</button></div></form>`,
  });

/** What the code belongs to, and the warning that this page exists for. */
export const deviceConfirmPage = (viewer: Viewer, view: { userCode: string; label: string }): string =>
  page({
    title: 'Log in a terminal by code',
    heading: html`Log in the terminal “${personText(view.label)}” as ${personText(viewer.actor.name)}?`,
    sub: html`It shows the code <strong class="mono">${view.userCode}</strong>. It may ask for access and claim it in your name for at most 12 hours; it may not approve anything.`,
    ...viewer,
    body: html`${warning(html`Only go on when you started this yourself and see this code on your own terminal. If somebody sent you the code, a link or a call, it is an attack: choose “Not me”.`)}
<form method="post" action="/device/decide">${csrfField(viewer.csrf)}${hiddenFields({ user_code: view.userCode })}
<div class="actions"><button class="first" name="decision" value="confirm">I started it: log the terminal in</button><button name="decision" value="deny">Not me</button></div></form>`,
  });

export const deviceDonePage = (viewer: Viewer, decision: 'confirm' | 'deny'): string =>
  page({
    title: 'Log in a terminal by code',
    heading: decision === 'confirm' ? 'The terminal is being logged in.' : 'The terminal was refused.',
    sub:
      decision === 'confirm'
        ? html`It goes on by itself within seconds; you can close this page. You can end it on the page of your <a href="/logins">logins</a>.`
        : 'Nothing was given to it. If you did not start this, tell your security team that somebody tried.',
    ...viewer,
    body: '',
  });

export interface LoginShown {
  readonly id: string;
  readonly kind: 'web' | 'cli' | 'device';
  readonly label: string;
  readonly createdAt: Date;
  readonly seenAt: Date;
  readonly expiresAt: Date;
  readonly current: boolean;
}

const kinds = { web: 'browser', cli: 'terminal', device: 'terminal by code: may ask and claim, not decide' };

export const loginsPage = (viewer: Viewer, logins: readonly LoginShown[], now: Date): string =>
  page({
    title: 'Logins',
    heading: logins.length === 1 ? 'You are logged in here and nowhere else.' : `You are logged in at ${logins.length} places.`,
    sub: html`End what you do not recognise. To log in a terminal, run <code>halligan login</code>.`,
    ...viewer,
    body: html`<table><thead><tr><th>Where</th><th>Since</th><th>Last used</th><th>Ends at the latest</th><th></th></tr></thead><tbody>${logins.map((login) => loginRow(viewer, login, now))}</tbody></table>
<form method="post" action="/logins/end-all">${csrfField(viewer.csrf)}<div class="actions"><button class="end">Log out everywhere</button><span class="soft">Ends every login above, this one too.</span></div></form>`,
  });

const loginRow = (
  viewer: Viewer,
  login: LoginShown,
  now: Date,
): Html => html`<tr><td>${personText(login.label)}${login.current ? html` <strong>· this one</strong>` : ''}<span class="under">${kinds[login.kind]}</span></td>
<td>${when(login.createdAt, now)}</td><td>${when(login.seenAt, now)}</td><td>${when(login.expiresAt, now)}</td>
<td class="act"><form method="post" action="/logins/end">${csrfField(viewer.csrf)}${hiddenFields({ id: login.id })}<button class="end" aria-label="${`End the login ${login.label}`}">End</button></form></td></tr>`;

/** Relative, with the exact time on hover. */
function when(at: Date, now: Date): Html {
  const seconds = Math.round((at.getTime() - now.getTime()) / 1000);
  const size = Math.abs(seconds);
  const words = size < 90 ? `${size} s` : size < 5_400 ? `${Math.round(size / 60)} min` : `${Math.round(size / 3_600)} h`;
  return html`<time datetime="${at.toISOString()}" title="${at.toISOString()}">${seconds > 0 ? `in ${words}` : `${words} ago`}</time>`;
}

const warning = (text: Part): Html => html`<div class="note glass"><strong>◆ Is this you?</strong> ${text}</div>`;

const hiddenFields = (fields: Readonly<Record<string, string>>): Html[] =>
  Object.entries(fields).map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`);
