/** Waiting through a lost network: the command says so and goes on, and asks once however often it has to send. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import type { WireGrant, WireRequest } from '../../src/cli/wire.ts';
import { newSeat, type Seat } from './run-cli.ts';

const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

const requestId = `req_${'a'.repeat(32)}`;
const soon = (seconds: number): string => new Date(Date.now() + seconds * 1_000).toISOString();

const grant = (): WireGrant => ({
  id: `gnt_${'b'.repeat(32)}`,
  requestId,
  person: { id: 'per_1', name: 'oncall' },
  entitlements: ['orders-readonly'],
  state: 'active',
  breakGlass: false,
  incident: null,
  reason: 'to look',
  startsAt: soon(0),
  endsAt: soon(300),
  endReason: null,
  endNote: null,
  endedAt: null,
  leases: [],
  overdue: false,
  review: null,
  readAt: soon(0),
});

const request = (state: WireRequest['state']): WireRequest => ({
  id: requestId,
  state,
  person: { id: 'per_1', name: 'oncall' },
  entitlements: [{ name: 'orders-readonly', opens: 'read', target: 'orders-db', grant: 'role orders_ro', described: null, unreadable: null }],
  durationSeconds: 300,
  duration: '5m',
  durationInWords: '5 minutes',
  reason: 'to look',
  incident: null,
  startAt: null,
  breakGlass: false,
  createdAt: soon(0),
  lapsesAt: soon(1_800),
  rules: [],
  decisions: [],
  deciders: [],
  decidersInWords: 'members of \u001b[31mleads',
  mine: true,
  mayDecide: false,
  seen: '0'.repeat(64),
  grant: state === 'approved' ? grant() : null,
});

/** A server that answers as Halligan does, when it answers. */
async function lossyServerDouble(answer: (call: IncomingMessage, polls: number) => WireRequest | 'lost'): Promise<{ seat: Seat; keys: string[] }> {
  const keys: string[] = [];
  let polls = 0;
  const server: Server = createServer((call, response) => {
    if (call.method === 'POST') keys.push(String(call.headers['idempotency-key']));
    else if (call.url?.startsWith('/api/v1/requests/')) polls += 1;
    const body = call.url === '/api/v1/entitlements' ? { items: [] } : answer(call, polls);
    if (body === 'lost') return void call.socket.resetAndDestroy();
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const seat = await newSeat({ HALLIGAN_SERVER: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, HALLIGAN_TOKEN: 'hgt_x' });
  stops.push(async () => {
    await seat.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { seat, keys };
}

test('a network that is lost while waiting is said once and waited out', async () => {
  const { seat } = await lossyServerDouble((call, polls) => {
    if (call.method === 'POST') return request('pending');
    // Two polls are lost with all of their three tries each.
    return polls > 1 && polls <= 7 ? 'lost' : request(polls > 7 ? 'approved' : 'pending');
  });
  const ran = await seat.run('request', 'orders-readonly', '--for', '5m', '--reason', 'to look');
  expect(ran.code, ran.err).toBe(0);
  expect(ran.err.match(/cannot be reached/g)).toHaveLength(1);
  expect(ran.err).toContain('Still waiting; the request itself is not touched by this.\nThe server answers again.\n');
  expect(ran.out).toBe(`${grant().id}\n`);
});

test('an answer lost on the way is asked for again under one key', async () => {
  let posts = 0;
  const { seat, keys } = await lossyServerDouble(() => (++posts === 1 ? 'lost' : request('pending')));
  const ran = await seat.run('request', 'orders-readonly', '--for', '5m', '--reason', 'to look', '--no-wait');
  expect(ran.code, ran.err).toBe(8);
  expect(ran.out).toBe(`${requestId}\n`);
  expect(keys).toHaveLength(2);
  expect(new Set(keys).size).toBe(1);
  expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
});

test('what the server says cannot paint on the terminal', async () => {
  const { seat } = await lossyServerDouble(() => request('pending'));
  const ran = await seat.run('request', 'orders-readonly', '--for', '5m', '--reason', 'to look', '--no-wait');
  expect(ran.err).toContain('members of \\u001b[31mleads');
  expect(ran.err).not.toContain('\u001b');
});
