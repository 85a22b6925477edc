import type pg from 'pg';
import type { Issued, Target } from '../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../support/postgres.ts';
import { type ContractSubject, describeProviderContract, type OpenSession } from '../support/provider-contract.ts';
import { connectTo, open } from './postgres/holder.ts';
import { makeHostileObjects } from './postgres/hostile.ts';

const session = (client: pg.Client, sql: string): OpenSession => ({
  works: () =>
    client.query(sql).then(
      () => true,
      () => false,
    ),
  close: () => client.end().catch(() => undefined),
});

async function subjectOf(target: TestTarget, login: (issued: Issued) => Promise<OpenSession>): Promise<ContractSubject> {
  const opened: Target[] = [];
  return {
    connect() {
      const one = connectTo(target.config);
      opened.push(one);
      return one;
    },
    grant: target.grant,
    missingGrant: { role: `${target.groupRole}_missing` },
    login,
    isRefusal: (error) => (error as { code?: string }).code === '28P01',
    async close() {
      for (const one of opened) await one.close();
      await target.close();
    },
  };
}

describeProviderContract('postgres, the orders database', async () => {
  const target = await testTarget();
  return subjectOf(target, async (issued) => session(await open(issued), 'SELECT count(*) FROM orders'));
});

describeProviderContract('postgres, every holder leaves hostile objects in two databases', async () => {
  const target = await testTarget();
  const side = `side_${target.database}`;
  await asSuperuser('postgres', `CREATE DATABASE ${side}`);
  for (const database of [target.database, side]) {
    await asSuperuser(
      database,
      `GRANT CONNECT, CREATE, TEMPORARY ON DATABASE ${database} TO ${target.groupRole}`,
      `GRANT CONNECT ON DATABASE ${database} TO ${target.adminRole}`,
      `GRANT CREATE ON SCHEMA public TO ${target.groupRole}`,
    );
  }
  await asSuperuser('postgres', `CREATE ROLE ${target.leftoversRole} NOLOGIN`, `GRANT ${target.leftoversRole} TO ${target.adminRole}`);
  for (const database of [target.database, side]) await asSuperuser(database, `GRANT CREATE ON SCHEMA public TO ${target.leftoversRole}`);
  await asSuperuser(target.database, `GRANT TRIGGER ON orders TO ${target.groupRole}`);
  const seen = new Set<string>();
  const subject = await subjectOf(target, async (issued) => {
    const client = await open(issued);
    if (!seen.has(issued.handle)) {
      seen.add(issued.handle);
      await makeHostileObjects(client, target);
      const elsewhere = await open(issued, side);
      await makeHostileObjects(elsewhere, null);
      await elsewhere.end();
    }
    return session(client, 'SELECT count(*) FROM public.orders');
  });
  return {
    ...subject,
    async close() {
      await asSuperuser('postgres', `DROP DATABASE ${side} WITH (FORCE)`);
      await subject.close();
    },
  };
});
