/**
 * Block Kit, as far as Halligan uses it. What people wrote goes into rich text and plain text only, where Slack takes
 * nothing for markup, a mention or a link; the fallback is escaped. Lengths are those that Slack documents, cut with a note.
 */
import type { types } from '@slack/bolt';
import { visible, visibleLine } from '../domain/hidden-text.ts';
import type { Fact } from '../notify/words.ts';

export type Block = types.KnownBlock;
export type Dialog = types.ModalView;

const plain = (text: string, most: number): types.PlainTextElement => ({ type: 'plain_text', text: cut(text, most) || ' ', emoji: false });

/** At most so many characters, with the last one saying that there was more; never half of a surrogate pair. */
export const cut = (text: string, most: number, mark = '…'): string =>
  text.length <= most
    ? text
    : `${text
        .slice(0, most - mark.length)
        .toWellFormed()
        .replace(/\ufffd$/, '')}${mark}`;

const factMost = 1_800;
/** What a text that is cut ends with. */
const more = ' … (its page shows all)';

/** The fallback that notifications and screen readers use. It is mrkdwn to Slack, so its three characters are escaped. */
export const fallback = (text: string): string => cut(visibleLine(text), 2_500).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** How every message goes out: Slack makes nothing of its text. */
export const inert = { mrkdwn: false, parse: 'none', link_names: false, unfurl_links: false, unfurl_media: false } as const;

export const header = (text: string): Block => ({ type: 'header', text: plain(text, 150) });
export const divider = (): Block => ({ type: 'divider' });
/** Small print. */
export const small = (text: string): Block => ({ type: 'context', elements: [plain(visibleLine(text), 2_000)] });

type Text = types.RichTextText;
const words = (text: string, style?: Text['style']): Text => ({ type: 'text', text: text || ' ', ...(style ? { style } : {}) });
const section = (...elements: Text[]): types.RichTextSection => ({ type: 'rich_text_section', elements });

/** A paragraph. */
export const paragraph = (text: string, strong = false): Block => ({
  type: 'rich_text',
  elements: [section(words(cut(visible(text), factMost, more), strong ? { bold: true } : undefined))],
});

/** Facts under each other, each with its label. A text of several lines stands as a quotation, so that nothing in it looks like a fact of ours. */
export const factList = (facts: readonly Fact[]): Block => ({
  type: 'rich_text',
  elements: facts.flatMap(({ label, value }): types.RichTextBlock['elements'] => {
    const text = cut(visible(value), factMost, more);
    if (label !== 'Why' && !text.includes('\n')) return [section(words(`${visibleLine(label)}  `, { bold: true }), words(`${text}\n`))];
    return [section(words(label, { bold: true })), { type: 'rich_text_quote', elements: [words(text)] }];
  }),
});

/** Lines in the target's own terms; the first so many, and how many there are. */
export function codeLines(lines: readonly string[], most = 12): Block | undefined {
  if (lines.length === 0) return undefined;
  const shown = lines.slice(0, most).map((line) => cut(visibleLine(line), 200));
  const rest = lines.length > most ? [`… ${lines.length} in all; its page shows them`] : [];
  return { type: 'rich_text', elements: [{ type: 'rich_text_preformatted', elements: [words(cut([...shown, ...rest].join('\n'), 2_800))] }] };
}

export interface ButtonOf {
  readonly action: string;
  readonly text: string;
  readonly value?: string;
  readonly url?: string;
  readonly style?: 'primary' | 'danger';
}

const button = ({ action, text, value, url, style }: ButtonOf): types.Button => ({
  type: 'button',
  action_id: action,
  text: plain(text, 75),
  ...(value === undefined ? {} : { value }),
  ...(url === undefined ? {} : { url }),
  ...(style === undefined ? {} : { style }),
});

/** Buttons in a row. */
export const buttons = (...list: readonly ButtonOf[]): Block => ({ type: 'actions', elements: list.map(button) });

/** A button that only opens a page of ours. Slack tells the app of the press all the same; it is acknowledged and means nothing. */
export const pageButton = (url: string, text = 'Open its page'): ButtonOf => ({ action: 'open-page', text, url });

/** Some lines that somebody types. */
export const textInput = (
  id: string,
  label: string,
  more: { hint?: string; lines?: boolean; optional?: boolean; most?: number; placeholder?: string; was?: string } = {},
): Block => ({
  type: 'input',
  block_id: id,
  label: plain(label, 2_000),
  optional: more.optional ?? false,
  ...(more.hint === undefined ? {} : { hint: plain(more.hint, 2_000) }),
  element: {
    type: 'plain_text_input',
    action_id: 'value',
    multiline: more.lines ?? false,
    max_length: more.most ?? 2_000,
    ...(more.placeholder === undefined ? {} : { placeholder: plain(more.placeholder, 150) }),
    ...(more.was === undefined ? {} : { initial_value: more.was }),
  },
});

export interface Choice {
  readonly value: string;
  readonly text: string;
}

const option = ({ value, text }: Choice): types.PlainTextOption => ({ value, text: plain(text, 75) });

/** One of several. */
export const oneOf = (id: string, label: string, choices: readonly Choice[], chosen?: Choice): Block => ({
  type: 'input',
  block_id: id,
  label: plain(label, 2_000),
  element: { type: 'static_select', action_id: 'value', options: choices.slice(0, 100).map(option), ...(chosen ? { initial_option: option(chosen) } : {}) },
});

/** Some of several. */
export const someOf = (id: string, label: string, choices: readonly Choice[], most: number, chosen: readonly Choice[] = []): Block => ({
  type: 'input',
  block_id: id,
  label: plain(label, 2_000),
  element: {
    type: 'multi_static_select',
    action_id: 'value',
    max_selected_items: most,
    options: choices.slice(0, 100).map(option),
    ...(chosen.length > 0 ? { initial_options: chosen.map(option) } : {}),
  },
});

/** A dialog. Title and buttons have 24 characters at most. */
export const dialog = (
  title: string,
  blocks: readonly Block[],
  more: { submit?: string; callback?: string; handle?: string; close?: string } = {},
): Dialog => ({
  type: 'modal',
  title: plain(title, 24),
  close: plain(more.close ?? (more.submit === undefined ? 'Close' : 'Cancel'), 24),
  ...(more.submit === undefined ? {} : { submit: plain(more.submit, 24) }),
  ...(more.callback === undefined ? {} : { callback_id: more.callback }),
  ...(more.handle === undefined ? {} : { private_metadata: more.handle }),
  blocks: [...blocks],
});

/** A dialog that only says something. */
export const saying = (title: string, text: string, ...list: readonly ButtonOf[]): Dialog =>
  dialog(title, [paragraph(text), ...(list.length > 0 ? [buttons(...list)] : [])]);
