/** The double refuses what Slack documents that it refuses: a test beside it would otherwise prove nothing. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SlackDouble } from '../../src/demo/slack-double.ts';
import { faultsOfBlocks, faultsOfView } from '../../src/demo/slack-double-limits.ts';

let slack: SlackDouble;
beforeAll(async () => {
  slack = await SlackDouble.start({
    users: [
      { id: 'U0A', name: 'a' },
      { id: 'U0GONE', name: 'gone', disabled: true },
    ],
    channels: [
      { id: 'C0A', name: 'a' },
      { id: 'C0OLD', name: 'old', archived: true },
      { id: 'C0OUT', name: 'out', botIsOut: true },
    ],
    burst: 3,
  });
});
afterAll(() => slack?.close());

async function call(method: string, args: object, token = slack.token): Promise<string> {
  const response = await fetch(`${slack.apiUrl}${method}`, {
    method: 'POST',
    body: JSON.stringify(args),
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
  });
  const answer = (await response.json()) as { ok: boolean; error?: string };
  return `${response.status} ${answer.error ?? 'ok'}${response.headers.has('retry-after') ? ` ${response.headers.get('retry-after')}` : ''}`;
}

const plain = (text: string) => ({ type: 'plain_text', text });
const section = (text: string) => ({ type: 'section', text: plain(text) });
const button = (more: object) => ({ type: 'actions', elements: [{ type: 'button', action_id: 'a', text: plain('x'), ...more }] });
const input = (element: object) => ({ type: 'input', block_id: 'i', label: plain('x'), element: { action_id: 'v', ...element } });
const options = (count: number) => Array.from({ length: count }, (_, index) => ({ text: plain(`o${index}`), value: String(index) }));

test.each([
  ['51 blocks', Array.from({ length: 51 }, () => section('x'))],
  ['an empty text', [section('')]],
  ['a text of 3,001', [section('x'.repeat(3_001))]],
  ['a headline of 151', [{ type: 'header', text: plain('x'.repeat(151)) }]],
  ['a headline in mrkdwn', [{ type: 'header', text: { type: 'mrkdwn', text: 'x' } }]],
  ['a button of 76', [button({ text: plain('x'.repeat(76)) })]],
  ['a value of 2,001', [button({ value: 'x'.repeat(2_001) })]],
  ['an address that is none', [button({ url: 'javascript:alert(1)' })]],
  ['two buttons of one name', [{ type: 'actions', elements: [1, 2].map(() => ({ type: 'button', action_id: 'a', text: plain('x') })) }]],
  ['an input', [input({ type: 'plain_text_input' })]],
  ['a mention in rich text', [{ type: 'rich_text', elements: [{ type: 'rich_text_section', elements: [{ type: 'broadcast', range: 'channel' }] }] }]],
  ['a kind that is not known', [{ type: 'table-of-mine' }]],
])('a message with %s', (_name, blocks) => {
  expect(faultsOfBlocks(blocks, 'message')).not.toEqual([]);
});

test.each([
  ['a title of 25', { title: plain('x'.repeat(25)), blocks: [] }],
  ['an input and nothing to send it', { title: plain('x'), blocks: [input({ type: 'plain_text_input' })] }],
  ['private_metadata of 3,001', { title: plain('x'), private_metadata: 'x'.repeat(3_001), blocks: [] }],
  ['101 options', { title: plain('x'), submit: plain('x'), blocks: [input({ type: 'static_select', options: options(101) })] }],
  ['no option', { title: plain('x'), submit: plain('x'), blocks: [input({ type: 'static_select', options: [] })] }],
  [
    'a choice that is none',
    { title: plain('x'), submit: plain('x'), blocks: [input({ type: 'static_select', options: options(2), initial_option: { value: '9' } })] },
  ],
  ['max_length of 3,001', { title: plain('x'), submit: plain('x'), blocks: [input({ type: 'plain_text_input', max_length: 3_001 })] }],
])('a dialog with %s', (_name, view) => {
  expect(faultsOfView({ type: 'modal', ...view })).not.toEqual([]);
});

test('its errors are those of Slack', async () => {
  expect(await call('chat.postMessage', { channel: 'C0A', text: 'x' }, 'xoxb-wrong')).toBe('200 invalid_auth');
  expect(await call('chat.postMessage', { channel: 'C0NONE', text: 'x' })).toBe('200 channel_not_found');
  expect(await call('chat.postMessage', { channel: 'C0OLD', text: 'x' })).toBe('200 is_archived');
  expect(await call('chat.postMessage', { channel: 'C0OUT', text: 'x' })).toBe('200 not_in_channel');
  expect(await call('chat.postMessage', { channel: 'C0A', blocks: [section('x')] })).toBe('200 no_text');
  expect(await call('chat.postMessage', { channel: 'C0A', text: 'x', blocks: [section('')] })).toBe('200 invalid_blocks');
  expect(await call('chat.update', { channel: 'C0A', ts: '1.0', text: 'x' })).toBe('200 message_not_found');
  expect(await call('conversations.open', { users: 'U0GONE' })).toBe('200 user_disabled');
  expect(await call('users.info', { user: 'U0NONE' })).toBe('200 user_not_found');
  expect(await call('no.such.method', {})).toBe('200 unknown_method');
  slack.revoked = true;
  expect(await call('auth.test', {})).toBe('200 token_revoked');
  slack.revoked = false;
});

test('a channel takes a burst and then one message a second; messages rise in their ts', async () => {
  const answers: string[] = [];
  for (let index = 0; index < 4; index++) answers.push(await call('chat.postMessage', { channel: 'C0A', text: `${index}` }));
  expect(answers).toEqual(['200 ok', '200 ok', '200 ok', '429 ratelimited 1']);
  const ts = slack.messagesIn('C0A').map((message) => Number(message.ts));
  expect(ts).toEqual(ts.toSorted((a, b) => a - b));
  expect(new Set(ts).size).toBe(3);
});

test('a trigger opens one dialog, within three seconds', async () => {
  const view = { type: 'modal', title: plain('x'), blocks: [section('x')] };
  slack.triggers.set('one', { user: 'U0A', until: Date.now() + 3_000 });
  slack.triggers.set('late', { user: 'U0A', until: Date.now() - 1 });
  expect(await call('views.open', { trigger_id: 'one', view })).toBe('200 ok');
  expect(await call('views.open', { trigger_id: 'one', view })).toBe('200 invalid_trigger_id');
  expect(await call('views.open', { trigger_id: 'late', view })).toBe('200 expired_trigger_id');
});
