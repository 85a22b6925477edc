/** The frame of every page: the bar, the headline, the footer that says how the log stands. */
import { type Html, html, type Part } from './html.ts';

export interface Frame {
  /** For the window's title; the headline is a sentence of its own. */
  readonly title: string;
  readonly heading: Part;
  readonly sub?: Part;
  readonly body: Part;
  /** Who looks; left out before a login. */
  readonly actor?: { readonly name: string } | undefined;
  readonly csrf?: string | undefined;
  /** The path of the entry of the bar that this page belongs to. */
  readonly current?: string;
  /** What waits for the viewer: shown in the bar. */
  readonly toDecide?: number;
  readonly toReview?: number;
  readonly head?: { readonly size: number; readonly sealedSecondsAgo: number | null; readonly waiting: number };
  /** The page follows changes. Left out for pages that must not change under the reader's hands. */
  readonly live?: boolean;
  /** An address of ours that the browser goes on to by itself. */
  readonly goOn?: string;
  /** The server's time when the page was made. */
  readonly now?: Date;
}

const entries = [
  ['/', 'Now'],
  ['/ask', 'Ask'],
  ['/decide', 'Decide'],
  ['/active', 'Active'],
  ['/reviews', 'Reviews'],
  ['/audit', 'Audit'],
  ['/entitlements', 'Entitlements'],
] as const;

const mark = html`<svg width="18" height="18" viewBox="0 0 18 18" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" aria-hidden="true"><path d="M3 15 13.5 4.5M11 2.5l4.5 4.5M15 2.6l.6-.6M3 15l-1.2-1.8M3 15l1.8 1.2"/></svg>`;

/** The hidden field that every form carries. */
export const csrfField = (token: string | undefined): Html => html`<input type="hidden" name="_csrf" value="${token ?? ''}">`;

function bar(frame: Frame): Html {
  const counts: Record<string, number> = { '/decide': frame.toDecide ?? 0, '/reviews': frame.toReview ?? 0 };
  if (!frame.actor) return html`<header class="bar"><a class="mark" href="/">${mark}Halligan</a></header>`;
  return html`<header class="bar"><a class="mark" href="/">${mark}Halligan</a>
<nav aria-label="Main">${entries.map(
    ([path, name]) =>
      html`<a href="${path}"${frame.current === path ? html` aria-current="page"` : ''}>${name}${counts[path] ? html`<span class="count" aria-label="${`${counts[path]} waiting`}">${counts[path]}</span>` : ''}</a>`,
  )}</nav>
<form class="who" method="post" action="/logout">${csrfField(frame.csrf)}<a href="/logins">${frame.actor.name}</a> · <a href="/accounts">accounts</a> · <button class="link">log out</button></form></header>`;
}

function foot(frame: Frame): Part {
  if (!frame.head) return html`<footer>Times are UTC.</footer>`;
  const { size, sealedSecondsAgo, waiting } = frame.head;
  const sealed =
    sealedSecondsAgo === null
      ? 'The log has no entry yet'
      : `Log sealed ${ago(sealedSecondsAgo)} at entry ${size - 1}${waiting > 0 ? `, ${waiting} waiting` : ''}`;
  return html`<footer>${sealed} · <a href="/audit">verify it yourself</a> · times are UTC</footer>`;
}

const ago = (seconds: number): string =>
  seconds < 90
    ? `${Math.max(0, Math.round(seconds))} s ago`
    : seconds < 5_400
      ? `${Math.round(seconds / 60)} min ago`
      : seconds < 172_800
        ? `${Math.round(seconds / 3_600)} h ago`
        : `${Math.round(seconds / 86_400)} d ago`;

/** A whole page. */
export function page(frame: Frame): string {
  return `<!doctype html>\n${
    html`<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">${frame.goOn !== undefined && html`<meta http-equiv="refresh" content="${`0;url=${frame.goOn}`}">`}<title>${frame.title} · Halligan</title><link rel="icon" href="/assets/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/assets/halligan.css"><script src="/assets/live.js" defer></script></head><body${frame.live ? html` data-live` : ''}${frame.now ? html` data-now="${frame.now.toISOString()}"` : ''}>
<a class="skip" href="#main">Skip to the page</a>
${bar(frame)}
<main id="main" tabindex="-1">
<h1>${frame.heading}</h1>${frame.sub ? html`<p class="sub">${frame.sub}</p>` : ''}
${frame.body}
</main>
${foot(frame)}
</body></html>`.html
  }`;
}
