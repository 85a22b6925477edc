/** What a story leaves behind: bytes in PostgreSQL, indexes included, for a request that was approved, claimed and given back, with its events in the sealed log. */
import type pg from 'pg';
import { clientOf } from './storm.ts';
import { type Bench, byClients, call, type Figure, figure, tokensOf, untilNone } from './support.ts';

const stories = 400;
const rowTables = ['request', 'decision', 'access_grant', 'lease', 'idempotency'];
const logTables = ['audit_event', 'audit_leaf', 'audit_node', 'audit_checkpoint'];

interface Asked {
  readonly id: string;
  readonly seen: string;
  readonly grant: { readonly id: string } | null;
}

const bytesOf = async (client: pg.Client, tables: readonly string[]): Promise<number> => {
  const { rows } = await client.query<{ bytes: string }>('SELECT sum(pg_total_relation_size(name::regclass))::text AS bytes FROM unnest($1::text[]) name', [
    tables,
  ]);
  return Number(rows[0]?.bytes);
};

/** Four hundred stories over HTTP. */
export async function growth(bench: Bench): Promise<Figure[]> {
  const { url } = bench;
  const [oncall, lead] = [await tokensOf(url, 'oncall', 12), await tokensOf(url, 'lead', 6)];
  const client = await clientOf(bench, 'halligan');
  const events = async (): Promise<number> => Number((await client.query('SELECT count(*)::int AS n FROM audit_event')).rows[0]?.n);
  const story = async (): Promise<void> => {
    const asked = await call<Asked>(url, oncall(), 'POST', '/requests', {
      entitlements: ['orders-readonly'],
      duration: '30m',
      reason: 'Checkout errors since 02:50, I need to see whether order rows are written twice.',
      incident: 'INC-4312',
    });
    const decided = await call<Asked>(url, lead(), 'POST', `/requests/${asked.id}/decisions`, {
      decision: 'approve',
      reason: 'go ahead, read only',
      seen: asked.seen,
    });
    await call(url, oncall(), 'POST', `/grants/${decided.grant?.id}/leases`, { entitlement: 'orders-readonly' });
    await call(url, oncall(), 'POST', `/grants/${decided.grant?.id}/return`);
  };
  const settled = async (): Promise<void> => {
    await untilNone(async () => (await client.query("SELECT FROM access_grant WHERE state <> 'ended'")).rowCount ?? 0);
    await untilNone(async () => (await client.query('SELECT FROM audit_pending')).rowCount ?? 0);
    // Rows that were changed leave room behind, which the next ones use; in service autovacuum sees to it.
    await client.query(`VACUUM ${[...rowTables, ...logTables].join(', ')}`);
  };
  await byClients(stories, story);
  await settled();
  const before = { rows: await bytesOf(client, rowTables), log: await bytesOf(client, logTables), events: await events() };
  await byClients(stories, story);
  await settled();
  const [rows, log, more] = [
    (await bytesOf(client, rowTables)) - before.rows,
    (await bytesOf(client, logTables)) - before.log,
    (await events()) - before.events,
  ];
  await client.end();
  return [
    figure(
      'bytes of a request with its decision, grant and lease',
      [rows / stories],
      { most: 5_000 },
      `${stories} requests, approved, claimed once and given back`,
    ),
    figure('bytes of an event in the sealed log', [log / more], { most: 2_500 }, `${(more / stories).toFixed(1)} events for each request`),
  ];
}
