/** Ten targets for a measured Halligan: ten databases of its own PostgreSQL, the last of them reached through a proxy that can hang. */
import pg from 'pg';

export const targetCount = 10;
export const targetOf = (index: number): string => `lot-${index}`;

export async function manyTargets(superuserUrl: string, proxyPort: number): Promise<{ target: string; entitlement: string }> {
  const client = new pg.Client({ connectionString: superuserUrl });
  await client.connect();
  const parts = [];
  for (let index = 0; index < targetCount; index++) {
    await client.query(`CREATE DATABASE lot_${index}`);
    await client.query(`GRANT CONNECT ON DATABASE lot_${index} TO orders_ro, halligan_target`);
    const port = index === targetCount - 1 ? proxyPort : client.port;
    const name = targetOf(index);
    parts.push({
      target: `  ${name}: { kind: postgres, host: 127.0.0.1, port: ${port}, database: lot_${index}, user: halligan_target, passwordEnv: HALLIGAN_DEMO_TARGET_PASSWORD, tls: disable }\n`,
      entitlement: `  ${name}:
    opens: read it
    target: ${name}
    grant: { role: orders_ro }
    owner: the bench
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 4h
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
`,
    });
  }
  await client.end();
  return { target: parts.map((part) => part.target).join(''), entitlement: parts.map((part) => part.entitlement).join('') };
}
