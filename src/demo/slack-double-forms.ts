/** What goes to and comes from the double, between its forms and our values. */
import type { IncomingMessage } from 'node:http';
import { isPart, type Part, partsOf, textOf } from './slack-double-limits.ts';

/** Values for a dialog's inputs, by the id of their block; a list for a choice of several. */
export type Values = Readonly<Record<string, string | readonly string[]>>;

/** A JSON object in an answer; undefined when it is none. */
export function parsed(text: string): Part | undefined {
  if (!text.startsWith('{')) return undefined;
  return JSON.parse(text) as Part;
}

/** The whole body of a request as text. */
export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Arguments come as JSON, or as a form whose blocks and views are JSON. */
export function argsOf(body: string, type: string): Part {
  if (type.includes('json')) return JSON.parse(body || '{}') as Part;
  return Object.fromEntries(
    [...new URLSearchParams(body)].map(([name, value]) => [
      name,
      /^[[{]/.test(value) && (name === 'blocks' || name === 'view') ? (JSON.parse(value) as unknown) : value,
    ]),
  );
}

/** What Slack sends of one input of a dialog. */
function stateOf(element: Part, value: string | readonly string[] | undefined): Part {
  const type = textOf(element['type']);
  const options = partsOf(element['options']);
  const byValue = (wanted: string) => options.find((option) => option['value'] === wanted) ?? { value: wanted };
  if (type === 'plain_text_input') return { type, value: value === undefined || value === '' ? null : value };
  if (type === 'multi_static_select')
    return {
      type,
      selected_options: [value ?? (element['initial_options'] as Part[] | undefined)?.map((one) => textOf(one['value'])) ?? []]
        .flat()
        .map((one) => byValue(String(one))),
    };
  const chosen = value ?? (isPart(element['initial_option']) ? textOf(element['initial_option']['value']) : undefined);
  return { type, selected_option: chosen === undefined ? null : byValue(String(chosen)) };
}

/** What Slack sends of everything that was typed into a dialog. */
export const valuesOf = (view: Part, values: Values): Part =>
  Object.fromEntries(
    partsOf(view['blocks'])
      .filter((block) => block['type'] === 'input')
      .map((block) => {
        const element = block['element'] as Part;
        const id = textOf(block['block_id']);
        return [id, { [textOf(element['action_id'])]: stateOf(element, values[id]) }];
      }),
  );
