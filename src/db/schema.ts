/** The tables of `migrations/`, as kysely needs to know them. */
import type { ColumnType, Generated } from 'kysely';
import type { Json } from '../domain/canonical.ts';
import type { PolicySnapshot } from '../domain/entitlement.ts';
import type { EndReason, GrantState, LeaseEndReason, LeaseState, RequestState, ReviewState, Verdict } from '../domain/lifecycle.ts';
import type { NoticeType } from '../domain/notice.ts';

type At = ColumnType<Date, Date | string, Date | string>;
type MaybeAt = ColumnType<Date | null, Date | string | null | undefined, Date | string | null>;
type DefaultNow = ColumnType<Date, Date | string | undefined, Date | string>;
/** A jsonb column: written as JSON text, read as a value. */
type Jsonb<T = Json> = ColumnType<T, string, string>;

export interface PersonTable {
  id: string;
  issuer: string;
  subject: string;
  name: string;
  groups: string[];
  groups_read_at: At;
  created_at: DefaultNow;
  email: string | null;
}

export interface SessionTable {
  id_hash: Buffer;
  id: string;
  person_id: string | null;
  data: Jsonb;
  created_at: DefaultNow;
  seen_at: DefaultNow;
}

export interface TokenTable {
  id: string;
  secret_hash: Buffer;
  person_id: string;
  via: 'cli' | 'device';
  label: string;
  auth_at: At;
  created_at: DefaultNow;
  seen_at: MaybeAt;
  expires_at: At;
  acr: string | null;
}

export interface LoginCodeTable {
  code_hash: Buffer;
  user_code_hash: Buffer | null;
  kind: 'cli' | 'device';
  person_id: string | null;
  challenge: string | null;
  redirect_uri: string | null;
  label: string;
  auth_at: MaybeAt;
  polled_at: MaybeAt;
  denied: Generated<boolean>;
  created_at: DefaultNow;
  expires_at: At;
  acr: string | null;
}

export interface RequestTable {
  id: string;
  person_id: string;
  state: RequestState;
  epoch: Generated<number>;
  entitlements: string[];
  duration_seconds: number;
  reason: string;
  incident: string | null;
  start_at: MaybeAt;
  break_glass: boolean;
  policy: Jsonb<PolicySnapshot[]>;
  policy_hash: string;
  approver_groups: string[];
  approver_subjects: string[];
  reviewer_groups: string[];
  reviewer_subjects: string[];
  created_at: DefaultNow;
  lapses_at: At;
  decided_at: MaybeAt;
}

export interface DecisionTable {
  id: string;
  request_id: string;
  requester_id: string;
  person_id: string;
  decision: 'approve' | 'deny';
  reason: string;
  seen: string;
  via: string;
  decided_at: DefaultNow;
}

export interface GrantTable {
  id: string;
  request_id: string;
  person_id: string;
  state: GrantState;
  epoch: Generated<number>;
  break_glass: boolean;
  incident: string | null;
  starts_at: At;
  ends_at: At;
  end_reason: EndReason | null;
  end_note: string | null;
  ending_at: MaybeAt;
  ended_at: MaybeAt;
}

export interface LeaseTable {
  id: string;
  grant_id: string;
  entitlement: string;
  target: string;
  kind: string;
  state: LeaseState;
  epoch: Generated<number>;
  external_name: string;
  target_grant: Jsonb;
  handle: string | null;
  expires_at: At;
  end_reason: LeaseEndReason | null;
  created_at: DefaultNow;
  revealed_at: MaybeAt;
  revoking_at: MaybeAt;
  cut_at: MaybeAt;
  read_back_at: MaybeAt;
  tries: Generated<number>;
  next_try_at: MaybeAt;
  last_error: string | null;
}

export interface ReviewTable {
  id: string;
  grant_id: string;
  person_id: string;
  state: ReviewState;
  epoch: Generated<number>;
  due_at: At;
  created_at: DefaultNow;
  closed_by: string | null;
  closed_at: MaybeAt;
  verdict: Verdict | null;
  notes: string | null;
}

export interface IdempotencyTable {
  person_id: string;
  key: string;
  body_hash: string;
  object_id: string;
  created_at: DefaultNow;
}

export interface OutboxTable {
  id: Generated<number>;
  topic: string;
  payload: Jsonb<Record<string, Json>>;
  created_at: DefaultNow;
}

export interface AuditEventTable {
  id: string;
  position: Generated<number>;
  at: At;
  type: string;
  actor_id: string | null;
  person_id: string | null;
  request_id: string | null;
  grant_id: string | null;
  lease_id: string | null;
  incident: string | null;
  entitlements: string[];
  line: string;
}

export interface AuditPendingTable {
  position: number;
}

export interface AuditLeafTable {
  index: number;
  event_id: string;
  hash: Buffer;
}

export interface AuditNodeTable {
  level: number;
  index: number;
  hash: Buffer;
}

export interface AuditCheckpointTable {
  size: number;
  root: Buffer;
  note: string;
  signed_at: DefaultNow;
}

export interface AliasTable {
  kind: 'slack';
  workspace: string;
  account: string;
  person_id: string;
  linked_at: DefaultNow;
}

export interface LinkCodeTable {
  code_hash: Buffer;
  person_id: string;
  created_at: DefaultNow;
  expires_at: At;
}

export interface DraftTable {
  handle_hash: Buffer;
  person_id: string;
  form: Jsonb<Record<string, Json>>;
  created_at: DefaultNow;
  expires_at: At;
}

export interface SlackHandleTable {
  handle_hash: Buffer;
  purpose: 'decide' | 'submit-decision' | 'end' | 'submit-end' | 'submit-request';
  request_id: string | null;
  grant_id: string | null;
  person_id: string | null;
  seen: string | null;
  created_at: DefaultNow;
  expires_at: At;
  used_at: MaybeAt;
}

export interface SlackCallTable {
  signature_hash: Buffer;
  at: DefaultNow;
}

export interface NoticeTable {
  id: string;
  type: NoticeType;
  request_id: string;
  grant_id: string | null;
  lease_id: string | null;
  step: Generated<number>;
  due_at: DefaultNow;
  created_at: DefaultNow;
  spread_at: MaybeAt;
}

export interface DeliveryTable {
  id: string;
  notice_id: string;
  request_id: string;
  channel: 'slack' | 'email' | 'webhook';
  form: 'card' | 'update' | 'reply';
  address: string;
  person_id: string | null;
  card_id: string | null;
  state: 'waiting' | 'sent' | 'failed' | 'dropped';
  tries: Generated<number>;
  next_try_at: MaybeAt;
  sending_until: MaybeAt;
  last_error: string | null;
  created_at: DefaultNow;
  sent_at: MaybeAt;
  ref: ColumnType<Json | null, string | null | undefined, string | null>;
}

export interface ProcessTable {
  id: string;
  host: string;
  pid: number;
  version: string;
  roles: ('web' | 'worker')[];
  started_at: At;
  seen_at: DefaultNow;
  clock_offset_ms: number;
  queue: 'memory' | 'redis' | null;
  queue_waiting: number | null;
  troubles: Generated<string[]>;
  policy: string | null;
}

export interface StoreTable {
  one: Generated<boolean>;
  identity: string;
  seen_at: DefaultNow;
}

export interface QuarantineTable {
  id: string;
  causes: ('log-ahead' | 'store-moved')[];
  database_size: number;
  published_size: number;
  began_at: DefaultNow;
  differences: ColumnType<Differences | null, string | null | undefined, string | null>;
  compared_at: MaybeAt;
  lifted_at: MaybeAt;
  lifted_by: string | null;
  reason: string | null;
}

/** Where targets and rows differ. `more`: how many were found beyond those that are listed. */
export interface Differences {
  readonly found: readonly Difference[];
  readonly more: number;
  /** Targets that could not be read, and why. */
  readonly unread: readonly { readonly target: string; readonly why: string }[];
}

/** `unexplained`: the target holds it and no open lease says so. `missing`: a lease is live and the target does not hold it. `unfinished`: a claim that never ended. */
export interface Difference {
  readonly kind: 'unexplained' | 'missing' | 'unfinished';
  readonly target: string;
  readonly name: string;
  readonly lease: string;
  /** When it ends by itself, RFC 3339; null where that is not known. */
  readonly endsAt: string | null;
}

export interface DutyTable {
  name: string;
  epoch: number;
  holder: string | null;
  held_until: MaybeAt;
  taken_at: MaybeAt;
  done_at: MaybeAt;
}

export interface AuditPrunedTable {
  end_index: number;
  first_index: number;
  export_sha256: string;
  before: At;
  pruned_at: DefaultNow;
}

export interface Schema {
  store: StoreTable;
  quarantine: QuarantineTable;
  alias: AliasTable;
  link_code: LinkCodeTable;
  draft: DraftTable;
  slack_handle: SlackHandleTable;
  slack_call: SlackCallTable;
  notice: NoticeTable;
  delivery: DeliveryTable;
  person: PersonTable;
  session: SessionTable;
  token: TokenTable;
  login_code: LoginCodeTable;
  request: RequestTable;
  decision: DecisionTable;
  access_grant: GrantTable;
  lease: LeaseTable;
  review: ReviewTable;
  idempotency: IdempotencyTable;
  outbox: OutboxTable;
  audit_event: AuditEventTable;
  audit_pending: AuditPendingTable;
  audit_leaf: AuditLeafTable;
  audit_node: AuditNodeTable;
  audit_checkpoint: AuditCheckpointTable;
  process: ProcessTable;
  duty: DutyTable;
  audit_pruned: AuditPrunedTable;
}
