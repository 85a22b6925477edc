/** Quarantine on pages: for everybody, that nothing is opened; for those who run Halligan, what differs after the restore. */
import { causeWords, type QuarantineView } from '../../db/read-models/quarantine.ts';
import type { Difference } from '../../db/schema.ts';
import { html, type Part, personText } from '../html.ts';
import { relative, time } from '../words.ts';

/** At the head of every page. */
export const quarantineNote = (on: QuarantineView, now: Date): Part =>
  html`<div class="note over" role="status"><strong>▲ Quarantine</strong> since ${time(on.beganAt, now)}: Halligan was restored from a backup. Nothing is opened until an admin has looked at it; ending access works.</div>`;

const kinds: Record<Difference['kind'], string> = {
  unexplained: 'only the target has it',
  missing: 'only the rows have it',
  unfinished: 'a claim that never ended',
};

/** The differences, and how it ends. */
export function quarantinePart(on: QuarantineView, now: Date): Part {
  const { differences, comparedAt } = on;
  return html`<section aria-label="Quarantine"><h2>Quarantine</h2>
<p>${sentence(causeWords(on))} ${comparedAt ? html`Rows and targets were compared ${relative(comparedAt, now)}.` : 'Rows and targets are being compared; that takes half a minute.'}</p>
${differences?.unread.map((one) => html`<div class="note over">${one.target} could not be read: ${personText(one.why)}</div>`)}
${
  differences && differences.found.length > 0
    ? html`<table><thead><tr><th>Target</th><th>Login</th><th>What differs</th><th>Ends by itself</th></tr></thead><tbody>${differences.found.map(
        (one) =>
          html`<tr><td>${one.target}</td><td><code>${one.name}</code></td><td>${kinds[one.kind]}</td><td><span class="narrow">ends by itself </span>${one.endsAt === null ? html`<span class="soft">not known</span>` : relative(new Date(one.endsAt), now)}</td></tr>`,
      )}</tbody></table>${differences.more > 0 && html`<p class="soft">and ${differences.more} more</p>`}`
    : differences && differences.unread.length === 0 && html`<p>Rows and targets agree.</p>`
}
<p class="soft">After the lift, what only a target has is ended there, and leases that only the rows have are ended in the rows. An admin lifts it in the terminal: <code>halligan quarantine lift --reason "…"</code></p></section>`;
}

const sentence = (words: string): string => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
