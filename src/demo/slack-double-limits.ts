/** What Slack documents that it takes, for the double: block kinds, counts, lengths. Each fault in words; none means that Slack would take it. */

export type Part = Readonly<Record<string, unknown>>;

export const isPart = (value: unknown): value is Part => typeof value === 'object' && value !== null && !Array.isArray(value);
export const partsOf = (value: unknown): Part[] => (Array.isArray(value) ? value.filter(isPart) : []);
export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

type Say = (fault: string) => void;

/** Faults of the blocks of a message (`message`) or of a dialog or home (`view`). */
export function faultsOfBlocks(blocks: unknown, surface: 'message' | 'modal' | 'home'): string[] {
  const faults: string[] = [];
  if (!Array.isArray(blocks)) return ['blocks is not a list'];
  const most = surface === 'message' ? 50 : 100;
  if (blocks.length > most) faults.push(`${blocks.length} blocks; the most is ${most}`);
  const ids = new Set<string>();
  for (const [index, block] of blocks.entries()) blockFaults(block, surface, ids, (fault) => void faults.push(`blocks[${index}]: ${fault}`));
  return faults;
}

function blockFaults(block: unknown, surface: 'message' | 'modal' | 'home', ids: Set<string>, say: Say): void {
  if (!isPart(block)) {
    say('is not an object');
    return;
  }
  const id = block['block_id'];
  if (id !== undefined) {
    if (typeof id !== 'string' || id.length > 255 || ids.has(id)) say('block_id is too long or not unique');
    ids.add(textOf(id));
  }
  const check = kinds[textOf(block['type'])];
  if (!check) say(`type ${JSON.stringify(block['type'])} is not known`);
  else if (block['type'] === 'input' && surface === 'message') say('an input in a message');
  else check(block, say);
}

/** Faults of a whole dialog or home. */
export function faultsOfView(view: unknown): string[] {
  if (!isPart(view)) return ['view is not an object'];
  const { type } = view;
  if (type !== 'modal' && type !== 'home') return ['type is neither modal nor home'];
  const faults = faultsOfBlocks(view['blocks'], type);
  const say: Say = (fault) => void faults.push(fault);
  if (textOf(view['private_metadata']).length > 3_000) say('private_metadata is longer than 3000');
  if (textOf(view['callback_id']).length > 255) say('callback_id is longer than 255');
  if (type === 'home') return faults;
  plain(view['title'], 24, 'title', say);
  if (view['submit'] !== undefined) plain(view['submit'], 24, 'submit', say);
  else if (partsOf(view['blocks']).some((block) => block['type'] === 'input')) say('submit is missing beside an input');
  if (view['close'] !== undefined) plain(view['close'], 24, 'close', say);
  return faults;
}

function plain(value: unknown, most: number, what: string, say: Say): void {
  if (!isPart(value) || value['type'] !== 'plain_text') {
    say(`${what} is not plain_text`);
    return;
  }
  lengthOf(value['text'], most, what, say);
}

function lengthOf(value: unknown, most: number, what: string, say: Say): void {
  if (typeof value !== 'string' || value === '') say(`${what} is empty`);
  else if (value.length > most) say(`${what} has ${value.length} characters; the most is ${most}`);
}

function anyText(value: unknown, most: number, what: string, say: Say): void {
  if (!isPart(value) || (value['type'] !== 'plain_text' && value['type'] !== 'mrkdwn')) {
    say(`${what} is not a text object`);
    return;
  }
  lengthOf(value['text'], most, what, say);
}

const kinds: Readonly<Record<string, (block: Part, say: Say) => void>> = {
  divider: () => undefined,
  header: (block, say) => plain(block['text'], 150, 'text', say),
  section(block, say) {
    const { text, fields, accessory } = block;
    if (text === undefined && fields === undefined) say('has neither text nor fields');
    if (text !== undefined) anyText(text, 3_000, 'text', say);
    if (partsOf(fields).length > 10) say('more than 10 fields');
    for (const field of partsOf(fields)) anyText(field, 2_000, 'field', say);
    if (isPart(accessory)) element(accessory, say);
  },
  context(block, say) {
    const elements = partsOf(block['elements']);
    if (elements.length === 0 || elements.length > 10) say(`${elements.length} elements; 1 to 10 are taken`);
    for (const one of elements) anyText(one, 3_000, 'element', say);
  },
  actions(block, say) {
    const elements = partsOf(block['elements']);
    if (elements.length === 0 || elements.length > 25) say(`${elements.length} elements; 1 to 25 are taken`);
    if (new Set(elements.map((one) => one['action_id'])).size !== elements.length) say('action_id is not unique');
    for (const one of elements) element(one, say);
  },
  input(block, say) {
    plain(block['label'], 2_000, 'label', say);
    if (block['hint'] !== undefined) plain(block['hint'], 2_000, 'hint', say);
    if (isPart(block['element'])) element(block['element'], say);
    else say('has no element');
  },
  rich_text(block, say) {
    const elements = partsOf(block['elements']);
    if (elements.length === 0) say('has no elements');
    for (const one of elements) richElement(one, say);
  },
};

function richElement(part: Part, say: Say): void {
  const type = textOf(part['type']);
  if (type === 'rich_text_list') {
    for (const item of partsOf(part['elements'])) richElement(item, say);
    return;
  }
  if (!['rich_text_section', 'rich_text_quote', 'rich_text_preformatted'].includes(type)) {
    say(`${type} is not a part of rich text`);
    return;
  }
  for (const one of partsOf(part['elements'])) {
    if (one['type'] !== 'text' && one['type'] !== 'link') say(`${textOf(one['type'])} is more than our cards use`);
    lengthOf(one['text'], 3_000, 'rich text', say);
  }
}

function element(part: Part, say: Say): void {
  const type = textOf(part['type']);
  if (part['action_id'] !== undefined) lengthOf(part['action_id'], 255, 'action_id', say);
  if (type === 'button') {
    plain(part['text'], 75, 'button text', say);
    if (part['value'] !== undefined) lengthOf(part['value'], 2_000, 'button value', say);
    if (part['url'] !== undefined && (textOf(part['url']).length > 3_000 || !/^https?:\/\//.test(textOf(part['url'])))) say('button url cannot be used');
    if (part['style'] !== undefined && part['style'] !== 'primary' && part['style'] !== 'danger') say('button style is not known');
    return;
  }
  if (part['placeholder'] !== undefined) plain(part['placeholder'], 150, 'placeholder', say);
  if (type === 'plain_text_input') {
    const most = part['max_length'] ?? 3_000;
    if (typeof most !== 'number' || most < 1 || most > 3_000) say('max_length is not 1 to 3000');
    if (textOf(part['initial_value']).length > Number(most)) say('initial_value is longer than max_length');
    return;
  }
  const optionsMost = ({ static_select: 100, multi_static_select: 100, radio_buttons: 10, checkboxes: 10 } as const)[type];
  if (optionsMost === undefined) {
    say(`element ${type} is not known`);
    return;
  }
  const options = partsOf(part['options']);
  if (options.length === 0 || options.length > optionsMost) say(`${options.length} options; 1 to ${optionsMost} are taken`);
  if (new Set(options.map((option) => option['value'])).size !== options.length) say('two options have one value');
  for (const option of options) {
    plain(option['text'], 75, 'option text', say);
    lengthOf(option['value'], 150, 'option value', say);
    if (option['description'] !== undefined) plain(option['description'], 75, 'option description', say);
  }
  const chosen = [part['initial_option'] ?? [], part['initial_options'] ?? []].flat().filter(isPart);
  for (const one of chosen) if (!options.some((option) => option['value'] === one['value'])) say('the option chosen before is none of the options');
}
