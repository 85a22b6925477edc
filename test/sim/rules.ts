/** The rules of `migrations/` that the code leans on, by their names, as the modelled store keeps them. */
import type { Row, Store, Table, Tx } from './store.ts';

/** The name of the first rule of the database that this row would break. */
export function brokenRule(store: Store, table: Table, row: Row, tx: Tx): string | undefined {
  const others = (of: Table): Row[] =>
    [...store.tables[of].values()].flatMap((entry) => {
      const other = entry.pending ?? entry.committed;
      return other && other.id !== row.id && !other['deleted'] ? [other] : [];
    });
  const rules: Partial<Record<Table, () => string | false | undefined>> = {
    decision: () =>
      (row['person_id'] === row['requester_id'] && 'decision_never_by_requester') ||
      (others('decision').some((other) => other['request_id'] === row['request_id'] && other['person_id'] === row['person_id']) && 'decision_once_per_person'),
    access_grant: () =>
      (others('access_grant').some((other) => other['request_id'] === row['request_id']) && 'grant_once_per_request') ||
      (!((row['ends_at'] as Date) > (row['starts_at'] as Date)) && 'grant_ends_after_it_starts') ||
      (['ending', 'ended', 'cancelled'].includes(row['state'] as string) !== (row['end_reason'] !== null) && 'grant_ending_has_reason') ||
      (['ended', 'cancelled'].includes(row['state'] as string) !== (row['ended_at'] !== null) && 'grant_ended_has_time') ||
      (['ended', 'cancelled'].includes(row['state'] as string) && hasOpenLeases(store, row.id, tx) && 'grant_ended_only_when_leases_are_gone'),
    lease: () =>
      (['issuing', 'live'].includes(row['state'] as string) &&
        others('lease').some(
          (other) =>
            other['grant_id'] === row['grant_id'] && other['entitlement'] === row['entitlement'] && ['issuing', 'live'].includes(other['state'] as string),
        ) &&
        'lease_one_live_per_entitlement') ||
      (row['state'] === 'live' && (row['revealed_at'] === null || row['handle'] === null) && 'lease_live_was_revealed') ||
      (['revoked', 'void'].includes(row['state'] as string) !== (row['read_back_at'] !== null) && 'lease_gone_is_read_back') ||
      ((row['state'] === 'revoking') !== (row['next_try_at'] !== null) && 'lease_revoking_has_next_try') ||
      (['revoking', 'revoked', 'void'].includes(row['state'] as string) !== (row['end_reason'] !== null) && 'lease_end_has_reason'),
    review: () =>
      (row['closed_by'] === row['person_id'] && 'review_never_by_holder') ||
      (others('review').some((other) => other['grant_id'] === row['grant_id']) && 'review_once_per_grant'),
  };
  const name = rules[table]?.();
  return name && !store.without.has(name) ? name : undefined;
}

function hasOpenLeases(store: Store, grantId: string, tx: Tx): boolean {
  for (const entry of store.tables.lease.values()) {
    const lease = store.seen(entry, tx);
    if (lease && lease['grant_id'] === grantId && lease['state'] !== 'revoked' && lease['state'] !== 'void') return true;
  }
  return false;
}
