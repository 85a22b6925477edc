/** Many leases at once, as rows made by SQL; with or without a login at the target. The person, the request's form and everything else are as the first request of the house left them. */
import type pg from 'pg';

/** Halligan's own database, as its superuser. */
export type Rows = Pick<pg.Pool, 'query'>;

interface Many {
  readonly target: string;
  readonly entitlement?: string;
  readonly count: number;
  /** `revoking`: their grants are ending, and nothing was tried yet. `live`: their grants are active until `endsAt`. */
  readonly state?: 'revoking' | 'live';
  /** Of live ones; now unless set. */
  readonly endsAt?: Date;
}

let series = 0;

/** Adds a request, a grant and a lease for each; gives the leases' ids. */
export async function addLeases(rows: Rows, { target, entitlement = 'orders-readonly', count, state = 'revoking', endsAt }: Many): Promise<string[]> {
  const mark = `${process.pid}-${target}-${++series}`;
  const live = state === 'live';
  const made = await rows.query<{ id: string }>(
    `WITH many AS (SELECT md5($1 || '-' || n) AS hex FROM generate_series(1, $2::int) n),
      asked AS (INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash,
          approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, lapses_at, decided_at)
        SELECT 'req_' || hex, p.id, 'approved', ARRAY[$3], 600, 'one of many', false, '[]', 'none', '{}', '{}', '{}', '{}', now(), now()
        FROM many, (SELECT id FROM person WHERE subject = 'oncall') p RETURNING id, person_id),
      granted AS (INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at, end_reason, ending_at)
        SELECT 'gnt_' || substr(id, 5), id, person_id, CASE WHEN $4 THEN 'active' ELSE 'ending' END, false, now() - interval '1 hour', $5::timestamptz,
          CASE WHEN $4 THEN NULL ELSE 'expired' END, CASE WHEN $4 THEN NULL ELSE now() END FROM asked RETURNING id)
      INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, handle, expires_at, created_at, revealed_at, end_reason, revoking_at, next_try_at)
        SELECT 'lse_' || substr(id, 5), id, $3, $6, 'postgres', CASE WHEN $4 THEN 'live' ELSE 'revoking' END, 'hg_' || substr(id, 5), '{}', 'hg_' || substr(id, 5), $5,
          now() - interval '1 hour', now() - interval '1 hour', CASE WHEN $4 THEN NULL ELSE 'expired' END, CASE WHEN $4 THEN NULL ELSE now() END, CASE WHEN $4 THEN NULL ELSE now() END
        FROM granted RETURNING id`,
    [mark, count, entitlement, live, endsAt ?? new Date(), target],
  );
  return made.rows.map(({ id }) => id);
}

/** Leases that are not proven gone. */
export async function leftOpen(rows: Rows): Promise<number> {
  const left = await rows.query<{ count: number }>(`SELECT count(*)::int AS count FROM lease WHERE state NOT IN ('revoked', 'void')`);
  return left.rows[0]?.count ?? Number.NaN;
}
