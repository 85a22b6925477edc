/** Pages as strings. `html` escapes everything that is put into it, unless it is itself made by `html`. */
import { codeOf, hiddenCharacters } from '../domain/hidden-text.ts';

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

/** What a person wrote: isolated for bidirectional text, with hidden characters shown by their code. */
export function personText(text: string): Html {
  const shown = escapeHtml(text).replace(hiddenCharacters, (character) => `<span class="hidden-char" title="a hidden character">${codeOf(character)}</span>`);
  return { html: `<bdi>${shown}</bdi>` };
}
