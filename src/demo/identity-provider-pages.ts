/** The pages of the development identity provider. Plain forms: they work without JavaScript, and the policy forbids any. */
import { createHash } from 'node:crypto';

export interface DevelopmentPerson {
  /** The subject: what Halligan keys a person by, together with the issuer. */
  readonly subject: string;
  readonly name: string;
  groups: readonly string[];
  /** Where their mail goes; left out, the provider says nothing of it. */
  email?: string;
}

/** The class of proof (`acr`) that a login with the second factor has. */
export const secondFactor = 'urn:halligan:demo:second-factor';

export interface DevelopmentClient {
  readonly clientId: string;
  readonly clientSecret: string;
  readonly redirectUris: readonly string[];
  /** Where a logout at the provider may lead back to. */
  readonly postLogoutRedirectUris?: readonly string[];
}

const style = `
:root { color-scheme: light dark; --line: #8886; --accent: light-dark(#0b57d0, #8ab4f8); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 0 auto; padding: 2rem 1rem; background: Canvas; color: CanvasText; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; }
.warn { border-inline-start: 4px solid #b26a00; padding: .25rem .75rem; margin: 1rem 0; }
button { display: block; width: 100%; box-sizing: border-box; text-align: start; font: inherit; padding: .75rem 1rem; margin: .5rem 0; border: 1px solid var(--line);
  border-radius: 6px; background: Canvas; color: inherit; cursor: pointer; }
button:hover, button:focus-visible { border-color: var(--accent); outline: 2px solid var(--accent); }
button span { display: block; font-size: .875rem; opacity: .8; }
`;
const styleHash = createHash('sha256').update(style).digest('base64');

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const text = (value: string): string => value.replace(/[&<>"']/g, (character) => escapes[character] ?? '');

const document = (title: string, body: string): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${text(title)}</title><style>${style}</style></head>
<body><main>${body}</main></body></html>
`;

/** Headers of every page. A form's answer leads back to the client, and browsers apply `form-action` to redirects too. */
export const pageHeaders = (clients: readonly DevelopmentClient[]): Record<string, string> => {
  const origins = new Set(clients.flatMap((client) => [...client.redirectUris, ...(client.postLogoutRedirectUris ?? [])]).map((uri) => new URL(uri).origin));
  return {
    'content-security-policy': `default-src 'none'; style-src 'sha256-${styleHash}'; form-action 'self' ${[...origins].join(' ')}; base-uri 'none'; frame-ancestors 'none'`,
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  };
};

/** One button for each person. */
export const choicePage = (uid: string, people: readonly DevelopmentPerson[], client: string, wanted: string): string =>
  document(
    'Who are you?',
    `<h1>Who are you?</h1>
<p class="warn"><strong>Development identity provider.</strong> It has no passwords: anyone on this machine can be anyone. Never use it for real access.</p>
<form method="post" action="/interaction/${text(uid)}">
<p>Log in to ${text(client)} as:</p>
<p><label><input type="checkbox" name="factor" value="second"> with a second factor${wanted ? ` <small>(asked for: ${text(wanted)})</small>` : ''}</label></p>
${people.map((person) => `<button name="person" value="${text(person.subject)}">${text(person.subject)}<span>${text(person.name)} · ${text(person.groups.join(', ') || 'no groups')}</span></button>`).join('\n')}
</form>`,
  );

/** A heading and a sentence; for a logout, also the protocol's own form. */
export const messagePage = (title: string, message: string, form?: string): string =>
  document(
    title,
    `<h1>${text(title)}</h1><p>${text(message)}</p>${form ? `${form}<button form="op.logoutForm" name="logout" value="yes">Log out</button><button form="op.logoutForm">Stay logged in</button>` : ''}`,
  );
