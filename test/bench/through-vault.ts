/** What a claim through Vault costs beside a bare read of the same secrets engine, and beside the least that a claim must do. */
import { Agent, request as httpRequest } from 'node:http';
import pg from 'pg';
import { newId } from '../../src/domain/ids.ts';
import { type Bench, byClients, call, clients, type Figure, figure, median, ms, quantile, tokensOf, untilNone } from './support.ts';

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** One bare call to Vault, by its root token, over a kept connection. */
const bareCall = <T>(bao: NonNullable<Bench['bao']>, method: string, path: string, body?: object): Promise<T> =>
  new Promise((resolve, reject) => {
    const payload = body && JSON.stringify(body);
    const headers = { 'x-vault-token': bao.rootToken, ...(payload ? { 'content-length': Buffer.byteLength(payload) } : {}) };
    const sent = httpRequest(`${bao.address}/v1/${path}`, { method, agent, headers, timeout: 30_000 }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if ((answer.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        else resolve((text === '' ? null : JSON.parse(text)) as T);
      });
    });
    sent.on('error', reject);
    sent.end(payload);
  });

/** Claims by eight clients at once, and the same number of bare reads; both take back what was made outside of what is measured. */
export async function throughVault({ url, superuserUrl }: Bench, bao: NonNullable<Bench['bao']>): Promise<Figure[]> {
  const [oncall, lead] = [await tokensOf(url, 'oncall', 8), await tokensOf(url, 'lead', 4)];
  const entitlement = 'orders-vault';
  const opened = async (): Promise<string> => {
    const asked = await call<{ id: string; seen: string }>(url, oncall(), 'POST', '/requests', {
      entitlements: [entitlement],
      duration: '1h',
      reason: 'measuring',
    });
    const decision = { decision: 'approve', reason: 'measuring', seen: asked.seen };
    return (await call<{ grant: { id: string } }>(url, lead(), 'POST', `/requests/${asked.id}/decisions`, decision)).grant.id;
  };
  const perRound = 160;
  const [p50, p99, floor]: [number[], number[], number[]] = [[], [], []];
  let [last, least] = ['', ''];
  const thin = await thinClient(bao, superuserUrl);
  for (let round = 0; round < 7; round++) {
    const grants: string[] = [];
    const leases: string[] = [];
    for (let i = 0; i < perRound; i++) grants.push(await opened());
    // Each database user that is there makes the next one dearer, so the two kinds take turns at being first.
    const took = { ours: [] as number[], bare: [] as number[] };
    const kinds = {
      ours: (i: number) => call(url, oncall(), 'POST', `/grants/${grants[i]}/leases`, { entitlement }),
      bare: async () => leases.push((await bareCall<{ lease_id: string }>(bao, 'GET', 'database/creds/orders-ro')).lease_id),
    };
    for (const kind of round % 2 === 0 ? (['ours', 'bare'] as const) : (['bare', 'ours'] as const)) took[kind] = await byClients(perRound, kinds[kind]);
    const { ours, bare } = took;
    for (const grant of grants) await call(url, oncall(), 'POST', `/grants/${grant}/return`);
    for (const lease of leases) await bareCall(bao, 'POST', 'sys/leases/revoke', { lease_id: lease, sync: true });
    await untilNone(() => bareCall<{ data: { keys: string[] } }>(bao, 'GET', 'halligan/leases/orders-vault?list=true').then((list) => list.data.keys.length));
    const thinly = await byClients(perRound, thin.claim);
    await thin.clear();
    if (round === 0) continue; // the first one warms up
    p50.push(median(ours) / median(bare));
    p99.push(quantile(ours, 0.99) / quantile(bare, 0.99));
    floor.push(median(thinly) / median(bare));
    last = `p50 ${ms(median(ours))} against ${ms(median(bare))}, p99 ${ms(quantile(ours, 0.99))} against ${ms(quantile(bare, 0.99))}, ${clients} clients`;
    least = `p50 ${ms(median(thinly))} against ${ms(median(bare))}, ${clients} clients`;
  }
  await thin.close();
  return [
    figure('claim over HTTP from Vault ÷ a bare read of database/creds, p50', p50, { most: 1.5 }, last),
    figure('claim over HTTP from Vault ÷ a bare read of database/creds, p99', p99, { most: 1.6 }, last),
    figure("the same calls to Vault and two commits by a client that does nothing else ÷ a bare read, p50: the claim's floor", floor, { least: 1 }, least),
  ];
}

/** A claim with everything left out but its calls to Vault, one after the other or at once as the provider makes them, and one commit before and after. */
async function thinClient(bao: NonNullable<Bench['bao']>, superuserUrl: string) {
  const pool = new pg.Pool({ connectionString: superuserUrl, max: clients });
  const commit = () => pool.query("SELECT pg_logical_emit_message(true, 'bench', 'a claim')");
  const made: { accessor: string; lease: string; index: string }[] = [];
  return {
    async claim(): Promise<void> {
      await commit();
      const name = `hg_${newId('lease', Date.now())}`;
      const token = {
        policies: ['halligan-lease-orders-ro'],
        no_default_policy: true,
        renewable: false,
        explicit_max_ttl: '3000000ms',
        display_name: name,
        meta: { halligan: name },
      };
      const { auth } = await bareCall<{ auth: { accessor: string; client_token: string } }>(bao, 'POST', 'auth/token/create/halligan-lease', token);
      const index = `halligan/leases/bench/${name}/${auth.accessor}`;
      const entry = { lease: name, grant: name, person: 'the bench', role: 'orders-ro', until: new Date().toISOString() };
      await bareCall(bao, 'POST', index, entry);
      const lease = (await bareCall<{ lease_id: string }>({ ...bao, rootToken: auth.client_token }, 'GET', 'database/creds/orders-ro')).lease_id;
      made.push({ accessor: auth.accessor, lease, index });
      await Promise.all([
        bareCall(bao, 'POST', 'sys/leases/renew', { lease_id: lease, increment: 3_000 }),
        bareCall(bao, 'POST', index, { ...entry, databaseLease: lease }),
        bareCall(bao, 'POST', 'auth/token/lookup-accessor', { accessor: auth.accessor }),
      ]);
      await commit();
    },
    async clear(): Promise<void> {
      for (const { accessor, lease, index } of made.splice(0)) {
        await bareCall(bao, 'POST', 'sys/leases/revoke', { lease_id: lease, sync: true });
        await bareCall(bao, 'POST', 'auth/token/revoke-accessor', { accessor });
        await bareCall(bao, 'DELETE', index);
      }
    },
    close: () => pool.end(),
  };
}
