/** Claims and whole cycles over HTTP, against the very SQL that they send, sent by a plain client. */
import { type Bench, call, type Figure, figure, median, ms, quantile, Replayer, timed, tokensOf, withoutDuties } from './support.ts';

interface Request {
  readonly id: string;
  readonly seen: string;
  readonly grant: { readonly id: string } | null;
}

const perRound = 60;
const rounds = 5;

export async function claims(bench: Bench): Promise<Figure[]> {
  const { url } = bench;
  const [oncall, lead] = [await tokensOf(url, 'oncall', 12), await tokensOf(url, 'lead', 6)];
  const ask = (duration: string): Promise<Request> =>
    call<Request>(url, oncall(), 'POST', '/requests', { entitlements: ['orders-readonly'], duration, reason: 'measuring', incident: 'BENCH' });
  const approve = (request: Request) =>
    call<Request>(url, lead(), 'POST', `/requests/${request.id}/decisions`, { decision: 'approve', reason: 'measuring', seen: request.seen });
  const claim = (grantId: string) => call<{ lease: string }>(url, oncall(), 'POST', `/grants/${grantId}/leases`, { entitlement: 'orders-readonly' });
  const giveBack = (grantId: string) => call(url, oncall(), 'POST', `/grants/${grantId}/return`);
  const opened = async (): Promise<{ grant: string; request: string }> => {
    const request = await approve(await ask('2h'));
    return { grant: request.grant?.id ?? '', request: request.id };
  };
  const cycle = async (): Promise<string> => {
    const grantId = (await approve(await ask('2h'))).grant?.id ?? '';
    await claim(grantId);
    return grantId;
  };

  for (let i = 0; i < 20; i++) await giveBack(await cycle());
  // What the warm-up gave back must be gone first, or its revocations are recorded too.
  const quiet = () => new Promise((resolve) => setTimeout(resolve, 2_000));
  await quiet();
  const recorded = await opened();
  const claimSql = withoutDuties(await bench.record(() => claim(recorded.grant)));
  const cycleSql = withoutDuties(await bench.record(cycle));
  const plain = await Replayer.open(bench.superuserUrl, cycleSql);
  const replay = async (on: { grant: string; request: string }) => plain.run(claimSql, { [recorded.grant]: on.grant, [recorded.request]: on.request });
  for (let i = 0; i < 20; i++) await replay(await opened());

  const p50: number[] = [];
  const p99: number[] = [];
  let last = '';
  for (let round = 0; round < rounds; round++) {
    const ours: number[] = [];
    const bare: number[] = [];
    await quiet();
    const used: string[] = [];
    for (let i = 0; i < perRound; i++) {
      const [one, other] = [await opened(), await opened()];
      used.push(one.grant, other.grant);
      ours.push(await timed(() => claim(one.grant)));
      bare.push(await timed(() => replay(other)));
    }
    p50.push(median(ours) / median(bare));
    p99.push(quantile(ours, 0.99) / quantile(bare, 0.99));
    last = `${ms(median(ours))} against ${ms(median(bare))}`;
    for (const id of used) await giveBack(id);
  }

  const throughput: number[] = [];
  const clients = 4;
  const plains = await Promise.all(Array.from({ length: clients }, () => Replayer.open(bench.superuserUrl, cycleSql)));
  let lastRate = '';
  for (let round = 0; round < rounds; round++) {
    await quiet();
    const made: string[] = [];
    const ours = await timed(() =>
      Promise.all(
        Array.from({ length: clients }, async () => {
          for (let i = 0; i < perRound / clients; i++) made.push(await cycle());
        }),
      ),
    );
    const bare = await timed(() =>
      Promise.all(
        plains.map(async (replayer) => {
          for (let i = 0; i < perRound / clients; i++) await replayer.run(cycleSql);
        }),
      ),
    );
    throughput.push(bare / ours);
    lastRate = `${((perRound / ours) * 1_000).toFixed(0)} cycles a second against ${((perRound / bare) * 1_000).toFixed(0)}`;
    for (const id of made) await giveBack(id);
  }
  await plain.close();
  await Promise.all(plains.map((replayer) => replayer.close()));
  const commits = (statements: { text: string }[]) => statements.filter(({ text }) => /^commit/i.test(text.trim())).length;
  return [
    figure('claim over HTTP ÷ the same SQL by a plain client, p50', p50, { most: 1.5 }, last),
    figure(
      'claim over HTTP ÷ the same SQL by a plain client, p99',
      p99,
      { most: 2 },
      `${claimSql.length} statements, ${commits(claimSql)} commits (one of them at the target)`,
    ),
    figure(
      'request → approve → claim a second ÷ the same statements by plain clients',
      throughput,
      { least: 0.35 },
      `${lastRate}, ${clients} clients, ${commits(cycleSql)} commits for the three`,
    ),
  ];
}
