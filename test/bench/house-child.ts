/** A whole Halligan in a process of its own, for the bench: it says where it is, and can record the SQL that it sends. */
import pg from 'pg';
import { type House, startHouse } from '../../src/demo/house.ts';
import { type TcpProxyDouble, tcpProxyDouble } from '../support/tcp-proxy-double.ts';
import { manyTargets } from './many-targets.ts';

export interface Recorded {
  /** `halligan`, or the target's database. */
  readonly database: string;
  /** Which connection sent it. */
  readonly connection: number;
  readonly text: string;
  readonly values: readonly unknown[];
}

let recording: Recorded[] | undefined;
const query = pg.Client.prototype.query as (...args: unknown[]) => unknown;
Object.assign(pg.Client.prototype, {
  query(this: pg.Client, ...args: unknown[]) {
    const [first, second] = args;
    if (recording && first && this.database) {
      const given = typeof first === 'string' ? { text: first, values: Array.isArray(second) ? second : [] } : (first as { text?: string; values?: unknown[] });
      if (given.text)
        recording.push({
          database: this.database,
          connection: (this as unknown as { processID?: number }).processID ?? 0,
          text: given.text,
          values: given.values ?? [],
        });
    }
    return query.apply(this, args);
  },
});

const { bao, many = false } = JSON.parse(process.argv[3] ?? '{}') as { bao?: string; many?: boolean };
let proxy: TcpProxyDouble | undefined;
const more = async (superuserUrl: string): Promise<{ target: string; entitlement: string }> => {
  proxy = await tcpProxyDouble(Number(new URL(superuserUrl).port));
  return manyTargets(superuserUrl, proxy.port);
};
const house: House = await startHouse({
  dataDirectory: process.argv[2] ?? '',
  log: () => undefined,
  port: 0,
  providerPort: 0,
  bao,
  ...(many ? { more } : {}),
});
process.on('message', (message: 'record' | 'recorded' | 'stop' | 'hang' | 'pass') => {
  if (message === 'hang' || message === 'pass') proxy?.set(message);
  if (message === 'record') recording = [];
  if (message === 'recorded') {
    process.send?.({ recorded: recording });
    recording = undefined;
  }
  if (message === 'stop') void house.stop().then(() => process.exit(0));
});
process.on('disconnect', () => void house.stop().then(() => process.exit(0)));
process.send?.({
  url: house.url,
  superuserUrl: house.postgres.superuserUrl,
  dataDirectory: house.postgres.dataDirectory,
  bao: house.bao && { address: house.bao.address, rootToken: house.bao.rootToken },
});
