/** Pages as strings. `html` escapes everything that is put into it, unless it is itself made by `html`. */
export interface Html {
  readonly html: string;
}
export type Part = Html | string | number | null | undefined | false | readonly Part[];

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => escapes[character] ?? character);

const render = (part: Part): string => {
  if (part === null || part === undefined || part === false) return '';
  if (typeof part === 'string') return escapeHtml(part);
  if (typeof part === 'number') return String(part);
  if ('html' in part) return part.html;
  return part.map(render).join('');
};

/** The tagged template that every page is made of. */
export const html = (strings: TemplateStringsArray, ...parts: Part[]): Html => ({
  html: strings.reduce((text, string, index) => text + render(parts[index - 1]) + string),
});

/** Characters that are not seen but change what is read: controls, zero-width, bidirectional, tags, odd spaces, fillers. */
const hidden =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** What a person wrote: isolated for bidirectional text, with hidden characters shown by their code. */
export function personText(text: string): Html {
  const shown = escapeHtml(text).replace(
    hidden,
    (character) =>
      `<span class="hidden-char" title="a hidden character">U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}</span>`,
  );
  return { html: `<bdi>${shown}</bdi>` };
}
