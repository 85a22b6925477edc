/** What people write may hold characters that are not seen but change what is read. Here they are found and made visible. */

/** Controls, zero-width, bidirectional, tags, odd spaces, fillers; not the line feed and the tab. */
export const hiddenCharacters =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** `U+202E` and the like. */
export const codeOf = (character: string): string => `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;

/** The text with each hidden character written as its code, `[U+202E]`. For plain text: mail, messages. */
export const visible = (text: string): string => text.toWellFormed().replace(hiddenCharacters, (character) => `[${codeOf(character)}]`);

/** The same in one line: line feeds and tabs become spaces. */
export const visibleLine = (text: string): string => visible(text.replace(/[\r\n\t]+/g, ' ').trim());
