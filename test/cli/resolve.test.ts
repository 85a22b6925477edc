import { expect, test } from 'vitest';
import type { Client } from '../../src/cli/client.ts';
import { activeGrant, askAgain, closedFault, resolveId } from '../../src/cli/resolve.ts';
import type { WireGrant } from '../../src/cli/wire.ts';

const id = (start: string): string => `req_${start.padEnd(32, '0')}`;

/** Lists as the server gives them, newest first; counts what is read. */
function clientDouble(lists: Record<string, readonly unknown[]>): Client & { read: number } {
  const client = {
    server: 'http://127.0.0.1:9',
    read: 0,
    get: async (path: string) => ({ items: lists[path] ?? [] }),
    post: () => Promise.reject(new Error('not here')),
    delete: () => Promise.reject(new Error('not here')),
    stream: () => Promise.reject(new Error('not here')),
    async *all(path: string) {
      for (const item of lists[path] ?? []) {
        client.read += 1;
        yield item;
      }
    },
  };
  return client as unknown as Client & { read: number };
}

test('a short id stands for the one that begins so, and the search ends where older ones begin', async () => {
  const requests = ['0199f3b1', '0199f3a2', '0199f3a1', '0199f300', '0199f200'].map((start) => ({ id: id(start) }));
  const client = clientDouble({ '/requests': requests });
  expect(await resolveId(client, 'req', 'req_0199f3a1')).toBe(id('0199f3a1'));
  expect(client.read).toBe(4);
  expect(await resolveId(client, 'req', id('abcdef'))).toBe(id('abcdef'));
  await expect(resolveId(client, 'req', 'req_0199f3a')).rejects.toThrow(`stands for two requests: ${id('0199f3a2')}, ${id('0199f3a1')}`);
  await expect(resolveId(client, 'req', 'req_0199ff')).rejects.toMatchObject({ exitCode: 1 });
  for (const bad of ['req_0199f', 'gnt_0199f3a1', 'req_XYZXYZ', 'req_0199f3a1/../../me', ''])
    await expect(resolveId(client, 'req', bad), bad).rejects.toMatchObject({ exitCode: 2 });
});

const grant = (more: Partial<WireGrant>): WireGrant => ({
  id: `gnt_${'1'.repeat(32)}`,
  requestId: id('1'),
  person: { id: 'per_1', name: 'oncall' },
  entitlements: ['orders-readonly'],
  state: 'active',
  breakGlass: false,
  incident: null,
  reason: 'to look',
  startsAt: '2026-11-24T03:12:07Z',
  endsAt: '2026-11-24T04:12:07Z',
  endReason: null,
  endNote: null,
  endedAt: null,
  leases: [],
  overdue: false,
  review: null,
  readAt: '2026-11-24T04:15:07Z',
  ...more,
});

test('a name stands for the open grant that lasts longest', async () => {
  const longer = grant({ id: `gnt_${'2'.repeat(32)}`, endsAt: '2026-11-24T05:00:00Z' });
  const client = clientDouble({
    '/grants': [
      grant({}),
      longer,
      grant({ entitlements: ['other'], endsAt: '2026-11-25T00:00:00Z' }),
      grant({ state: 'ending', endsAt: '2026-11-26T00:00:00Z' }),
    ],
  });
  expect((await activeGrant(client, 'orders-readonly')).id).toBe(longer.id);
});

test('closed access says since when, why, and how to ask again', () => {
  const fault = closedFault(grant({ state: 'ended', endReason: 'expired', endedAt: '2026-11-24T04:12:08Z', incident: 'INC-4312' }), 'orders-readonly');
  expect(fault.message).toBe('orders-readonly closed at 04:12:07 UTC (expired, 3 min ago).');
  expect(fault.next).toBe('Ask again: halligan request orders-readonly --for 1h --incident INC-4312');
  expect(fault.exitCode).toBe(5);
  expect(closedFault(grant({ state: 'ended', endReason: 'revoked', endNote: 'too wide', endedAt: '2026-11-24T03:40:07Z' }), 'x').message).toBe(
    'x closed at 03:40:07 UTC (revoked: “too wide”, 35 min ago).',
  );
});

test('what was never asked for is told apart from what may not be asked for', async () => {
  const offered = (name: string, mayAsk: boolean) => ({ name, mayAsk, mayBreakGlass: false, owner: 'the orders team' });
  const client = clientDouble({ '/entitlements': [offered('orders-readonly', true), offered('payroll', false)] });
  await expect(activeGrant(client, 'orders-readonly')).rejects.toMatchObject({ exitCode: 5 });
  await expect(activeGrant(client, 'payroll')).rejects.toMatchObject({ exitCode: 6 });
  await expect(activeGrant(client, 'orders-ro')).rejects.toMatchObject({ exitCode: 2 });
  expect(askAgain({ entitlements: ['a', 'b'], seconds: 5_400, incident: "it's" })).toBe(`halligan request a b --for 1h30m --incident 'it'\\''s'`);
});
