/**
 * Text for a terminal. Whatever came from people or from the server may hold escape sequences, line ends or bidi
 * overrides that would repaint the screen or turn a sentence around; they are shown, never obeyed.
 */

/** C0 and C1 controls, DEL, format characters (bidi, zero width, tags), line and paragraph separators, lone surrogates. */
const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

const codeOf = (character: string): string => {
  const point = character.codePointAt(0) ?? 0;
  return point > 0xffff ? `\\u{${point.toString(16)}}` : `\\u${point.toString(16).padStart(4, '0')}`;
};

/** One line: line ends become a visible `⏎`, tabs a space, every other control or format character its escape (`\u001b`). */
export const line = (text: string): string =>
  text
    .replace(/\r\n|\n/g, ' ⏎ ')
    .replaceAll('\t', ' ')
    .replace(unsafe, codeOf);

/** Several lines kept apart, each made safe. */
export const lines = (text: string): string =>
  text
    .split(/\r\n|\n/)
    .map(line)
    .join('\n');

/** JSON that means the same and holds no character a terminal would obey: they become `\uXXXX`. Line ends of the layout stay. */
export const safeJson = (json: string): string =>
  json.replace(unsafe, (character) =>
    character === '\n' ? character : [...Array(character.length).keys()].map((i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`).join(''),
  );

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });
const wide =
  /^(\p{Emoji_Presentation}|.*\ufe0f|[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}])/u;
const noWidth = /^\p{M}+$/u;

/** How many cells a terminal gives to `text`: 2 for East Asian wide characters and emoji, none for combining marks. */
export function displayWidth(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += noWidth.test(segment) ? 0 : wide.test(segment) ? 2 : 1;
  return width;
}

/** At most `cells` wide, with `…` where something was left out. */
export function cut(text: string, cells: number): string {
  if (displayWidth(text) <= cells) return text;
  let kept = '';
  let width = 0;
  for (const { segment } of graphemes.segment(text)) {
    const more = displayWidth(segment);
    if (width + more > cells - 1) break;
    kept += segment;
    width += more;
  }
  return `${kept}…`;
}

/** A word for a POSIX shell: as it is when it needs no quotes, otherwise in single quotes. */
export const shellWord = (text: string): string => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
