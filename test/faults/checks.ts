/**
 * What must hold, asked of the database by SQL and of the targets themselves, never of Halligan: while something is amiss, when all
 * processes are back and quiet, and of the log as it was published. Each check returns what is wrong, in words; nothing is fine.
 */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyExport } from '../../src/audit/verify.ts';
import type { Scene } from './scene.ts';

/** Rows that show that something is still to be done; empty when all is quiet. */
export async function busy(scene: Scene): Promise<string[]> {
  const rows = await scene.query<{ what: string }>(
    `SELECT 'grant ' || id || ' is ' || state || ' until ' || ends_at AS what FROM access_grant WHERE state NOT IN ('ended', 'cancelled')
     UNION ALL SELECT 'lease ' || id || ' at ' || target || ' is ' || state || coalesce(': ' || last_error, '') FROM lease WHERE state NOT IN ('revoked', 'void')
     UNION ALL SELECT 'message ' || id || ' is in the outbox' FROM outbox
     UNION ALL SELECT 'event ' || position || ' is not sealed' FROM audit_pending
     UNION ALL SELECT 'notice ' || id || ' is not spread' FROM notice WHERE spread_at IS NULL AND due_at <= now()
     UNION ALL SELECT 'delivery ' || id || ' waits' || coalesce(': ' || last_error, '') FROM delivery WHERE state = 'waiting'`,
  );
  const [head] = await scene.query<{ note: string }>('SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1');
  const latest = await readFile(join(scene.house.folder, 'checkpoints', 'latest'), 'utf8').catch(() => '');
  return [...rows.map(({ what }) => what), ...(head && head.note !== latest ? ['the newest checkpoint is not published'] : [])];
}

interface Seen {
  readonly state: string;
  readonly revealed: boolean;
  readonly reveals: number;
  readonly over_for: number;
}

/**
 * At any moment: what was answered is recorded and witnessed; what is recorded as gone lets nobody in; no two credentials of one
 * entitlement live. With `overSeconds`, what has been over for so long lets nobody in either, whoever is dead or asleep.
 */
export async function agreesNow(scene: Scene, overSeconds?: number): Promise<string[]> {
  const wrong: string[] = [];
  for (const { claim, session } of scene.answered) {
    const [row] = await scene.query<Seen>(
      `SELECT l.state, l.revealed_at IS NOT NULL AS revealed, (SELECT count(*)::int FROM audit_event e WHERE e.lease_id = l.id AND e.type = 'lease.revealed') AS reveals,
              extract(epoch FROM clock_timestamp() - least(g.ends_at, g.ending_at, l.expires_at, l.revoking_at))::float AS over_for
         FROM lease l JOIN access_grant g ON g.id = l.grant_id WHERE l.id = $1`,
      claim.lease,
    );
    if (!row?.revealed || row.reveals === 0) wrong.push(`${claim.lease} was answered and is not recorded as shown`);
    const mustBeClosed = row?.state === 'revoked' || row?.state === 'void' || (overSeconds !== undefined && row !== undefined && row.over_for > overSeconds);
    if (!mustBeClosed) continue;
    const why = `${claim.lease} (${row?.state}, over for ${row?.over_for.toFixed(0)} s)`;
    if (await scene.target.letsIn(claim)) wrong.push(`${why} still lets its holder in`);
    if (await session?.open()) wrong.push(`a session of ${why} is still open`);
  }
  const twice = await scene.query<{ grant_id: string }>(
    `SELECT grant_id FROM lease WHERE state IN ('issuing', 'live') GROUP BY grant_id, entitlement HAVING count(*) > 1`,
  );
  return [...wrong, ...twice.map(({ grant_id }) => `${grant_id} has two live leases of one entitlement`)];
}

/** One audit event for each state change, with ids that fit; nothing is called gone that was not read back. */
async function witnesses(scene: Scene): Promise<string[]> {
  const count = (column: string, id: string, ...types: string[]): string =>
    `(SELECT count(*)::int FROM audit_event e WHERE e.${column} = ${id} AND e.type IN (${types.map((type) => `'${type}'`).join(', ')}))`;
  const rows = await scene.query<{ wrong: string }>(
    `SELECT 'lease ' || id || ' (' || state || '): ' || what AS wrong FROM lease l, LATERAL (VALUES
       ('not intended once', ${count('lease_id', 'l.id', 'lease.intended')} = 1),
       ('its end is not witnessed once', ${count('lease_id', 'l.id', 'lease.ending')} = CASE state WHEN 'revoked' THEN 1 ELSE 0 END),
       ('being gone is not witnessed once', ${count('lease_id', 'l.id', 'lease.revoked')} = CASE state WHEN 'revoked' THEN 1 ELSE 0 END),
       ('being void is not witnessed once', ${count('lease_id', 'l.id', 'lease.voided')} = CASE state WHEN 'void' THEN 1 ELSE 0 END),
       ('its cut is not witnessed once', ${count('lease_id', 'l.id', 'lease.cut')} = CASE WHEN cut_at IS NULL THEN 0 ELSE 1 END),
       ('shown without a witness, or a witness without being shown', (${count('lease_id', 'l.id', 'lease.revealed')} > 0) = (revealed_at IS NOT NULL)),
       ('shown more often than claimed', ${count('lease_id', 'l.id', 'lease.revealed')} <= ${count('lease_id', 'l.id', 'lease.intended', 'lease.again')}),
       ('not read back', read_back_at IS NOT NULL)) AS rule(what, holds) WHERE NOT holds
     UNION ALL SELECT 'grant ' || id || ': ' || what FROM access_grant g, LATERAL (VALUES
       ('not opened once', ${count('grant_id', 'g.id', 'grant.opened')} = 1),
       ('its end is not witnessed once', ${count('grant_id', 'g.id', 'grant.expired', 'grant.returned', 'grant.revoked', 'grant.offboarded', 'grant.incident-closed')} = 1),
       ('being ended is not witnessed once', ${count('grant_id', 'g.id', 'grant.ended')} = 1)) AS rule(what, holds) WHERE NOT holds
     UNION ALL SELECT 'request ' || id || ' (' || state || '): ' || what FROM request r, LATERAL (VALUES
       ('not submitted once', ${count('request_id', 'r.id', 'request.submitted')} = 1),
       ('its approval is not witnessed once', ${count('request_id', 'r.id', 'request.approved')} = CASE state WHEN 'approved' THEN 1 ELSE 0 END),
       ('approved without a grant, or a grant without approval', (SELECT count(*) FROM access_grant g WHERE g.request_id = r.id) = CASE state WHEN 'approved' THEN 1 ELSE 0 END)
       ) AS rule(what, holds) WHERE NOT holds
     UNION ALL SELECT 'event ' || e.id || ' (' || e.type || ') names what is not there' FROM audit_event e
       WHERE e.type NOT IN ('lease.unexplained', 'lease.adopted') AND (e.lease_id IS NOT NULL AND NOT EXISTS (SELECT FROM lease l WHERE l.id = e.lease_id AND l.grant_id = e.grant_id)
          OR e.grant_id IS NOT NULL AND NOT EXISTS (SELECT FROM access_grant g WHERE g.id = e.grant_id))`,
  );
  return rows.map(({ wrong }) => wrong);
}

/** Positions without a gap, each event once, each hash that of its line; and what was published is signed over exactly these. */
async function log(scene: Scene): Promise<string[]> {
  const rows = await scene.query<{ index: number; hash: Buffer; id: string | null; type: string; line: string }>(
    'SELECT l.index::int, l.hash, e.id, e.type, e.line FROM audit_leaf l LEFT JOIN audit_event e ON e.id = l.event_id ORDER BY l.index',
  );
  const [all] = await scene.query<{ n: number }>('SELECT count(*)::int AS n FROM audit_event');
  const wrong = all?.n === rows.length ? [] : [`${all?.n} events have ${rows.length} places in the log`];
  for (const [place, { index, hash, id, type, line }] of rows.entries()) {
    const said = JSON.parse(line ?? '{}') as { id?: string; type?: string };
    const own = createHash('sha256')
      .update(Buffer.of(0))
      .update(line ?? '', 'utf8')
      .digest();
    if (index !== place || said.id !== id || said.type !== type || !own.equals(hash)) wrong.push(`place ${place} of the log does not hold its event`);
  }
  const file = join(scene.house.folder, 'export.jsonl');
  await writeFile(file, rows.map(({ line }) => `${line}\n`).join(''));
  const verified = await verifyExport({ log: file, checkpoints: join(scene.house.folder, 'checkpoints'), key: scene.house.verifierKey });
  return [...wrong, ...(verified.ok ? [] : [`the log does not verify: ${verified.problem}: ${verified.message}`])];
}

const formsOf = (secret: string): string[] => {
  const bytes = Buffer.from(secret, 'utf8');
  return [secret, bytes.toString('base64').replace(/=+$/, ''), bytes.toString('hex'), encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)];
};

/** No secret in any row of any table, nor in what any process wrote. */
async function canaries(scene: Scene): Promise<string[]> {
  const secrets = [...scene.canaries, ...scene.answered.flatMap(({ claim }) => Object.values(claim.secret))].filter((secret) => secret.length >= 8);
  const forms = [...new Set(secrets.flatMap(formsOf))];
  const wrong: string[] = [];
  const tables = await scene.query<{ name: string }>(`SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'public'`);
  for (const { name } of tables) {
    const found = await scene.query(`SELECT FROM ${name} t WHERE EXISTS (SELECT FROM unnest($1::text[]) s WHERE position(s IN t::text) > 0) LIMIT 1`, forms);
    if (found.length > 0) wrong.push(`a secret stands in ${name}`);
  }
  for (const member of scene.members) {
    const output = member.output();
    if (forms.some((form) => output.includes(form))) wrong.push(`a ${member.role} wrote a secret into its log`);
  }
  return wrong;
}

/** Everyone who was to be told was, at least once. */
async function told({ receiver, query }: Scene): Promise<string[]> {
  if (!receiver) return [];
  const arrived = new Set(receiver.calls.map(({ headers }) => headers['webhook-id']));
  const rows = await query<{ id: string; state: string }>('SELECT id, state FROM delivery');
  const wrong = rows
    .filter(({ id, state }) => state !== 'sent' || !arrived.has(id))
    .map(({ id, state }) => `the message ${id} is ${state} and ${arrived.has(id) ? 'arrived' : 'never arrived'}`);
  return rows.length === 0 ? ['nobody was told of anything'] : wrong;
}

/** Everything, with all processes back and quiet. */
export async function holdsAtTheEnd(scene: Scene): Promise<string[]> {
  const late = await scene.query<{ id: string }>(`SELECT id FROM access_grant WHERE ends_at < now() AND state NOT IN ('ended', 'cancelled')`);
  const open: string[] = [];
  for (const { claim, session } of scene.answered) {
    if (await scene.target.letsIn(claim)) open.push(`${claim.lease} lets its holder in although it is over`);
    if (await session?.open()) open.push(`a session of ${claim.lease} is still open`);
  }
  return [
    ...late.map(({ id }) => `${id} is past its end and not ended`),
    ...open,
    ...(await agreesNow(scene, 0)),
    ...(await witnesses(scene)),
    ...(await log(scene)),
    ...(await canaries(scene)),
    ...(await told(scene)),
  ];
}

/** What the target holds under our marker; all leases are over by now. */
export async function residue(scene: Scene): Promise<string[]> {
  const rows = await scene.query<{ id: string }>('SELECT id FROM lease');
  return scene.target.residue(
    scene.house,
    rows.map(({ id }) => id),
  );
}
