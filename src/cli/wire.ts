/** What the server answers, as it travels: times are RFC 3339 text. `/openapi.json` describes the same forms. */

export interface WirePerson {
  readonly id: string;
  readonly name: string;
}

export interface WireEntitlement {
  readonly name: string;
  readonly opens: string;
  readonly target: string;
  readonly kind: string;
  readonly grant: string;
  readonly owner: string;
  readonly policy: readonly string[];
  readonly maxDuration: string;
  readonly breakGlassMaxDuration: string | null;
  readonly approvers: string;
  readonly mayAsk: boolean;
  readonly mayBreakGlass: boolean;
}

export interface WireLease {
  readonly kind: string;
  readonly id: string;
  readonly entitlement: string;
  readonly target: string;
  readonly state: 'issuing' | 'live' | 'revoking' | 'revoked' | 'void';
  readonly handle: string;
  readonly expiresAt: string;
  readonly createdAt: string;
  readonly cutAt: string | null;
  readonly readBackAt: string | null;
  readonly lastError: string | null;
  readonly overdue: boolean;
}

export interface WireGrant {
  readonly id: string;
  readonly requestId: string;
  readonly person: WirePerson;
  readonly entitlements: readonly string[];
  readonly state: 'scheduled' | 'active' | 'ending' | 'ended' | 'cancelled';
  readonly breakGlass: boolean;
  readonly incident: string | null;
  readonly reason: string;
  readonly startsAt: string;
  readonly endsAt: string;
  readonly endReason: string | null;
  readonly endNote: string | null;
  readonly endedAt: string | null;
  readonly leases: readonly WireLease[];
  readonly overdue: boolean;
  readonly review: { readonly id: string; readonly state: 'due' | 'closed'; readonly dueAt: string; readonly verdict: string | null } | null;
  readonly readAt: string;
}

export interface WireEvent {
  readonly id: string;
  readonly index: number | null;
  readonly at: string;
  readonly type: string;
  readonly actor: { readonly id: string; readonly name: string; readonly via: string } | { readonly system: string };
  readonly person: WirePerson | null;
  readonly request: string | null;
  readonly grant: string | null;
  readonly incident: string | null;
  readonly entitlements: readonly string[];
  readonly data: Readonly<Record<string, unknown>>;
}

export interface WireRequest {
  readonly id: string;
  readonly state: 'pending' | 'approved' | 'denied' | 'withdrawn' | 'lapsed';
  readonly person: WirePerson;
  readonly entitlements: readonly {
    readonly name: string;
    readonly opens: string;
    readonly target: string;
    readonly grant: string;
    readonly described: { readonly summary: string; readonly details: readonly string[] } | null;
    readonly unreadable: string | null;
  }[];
  readonly durationSeconds: number;
  readonly duration: string;
  readonly durationInWords: string;
  readonly reason: string;
  readonly incident: string | null;
  readonly startAt: string | null;
  readonly breakGlass: boolean;
  readonly createdAt: string;
  readonly lapsesAt: string;
  readonly rules: readonly { readonly entitlement: string; readonly of: string; readonly count: number; readonly filled: number }[];
  readonly decisions: readonly { readonly person: WirePerson; readonly decision: 'approve' | 'deny'; readonly reason: string; readonly at: string }[];
  readonly deciders: readonly WirePerson[];
  readonly decidersInWords: string;
  readonly mine: boolean;
  readonly mayDecide: boolean;
  readonly seen: string;
  readonly grant: WireGrant | null;
  readonly story?: readonly WireEvent[];
}

/** Who was told of a request. */
export interface WireTold {
  readonly items: readonly {
    readonly channel: 'slack' | 'email' | 'webhook';
    readonly to: string;
    readonly person: WirePerson | null;
    readonly about: string;
    readonly state: 'waiting' | 'sent' | 'failed';
    readonly at: string;
    readonly tries: number;
    readonly nextTryAt: string | null;
    readonly why: string | null;
  }[];
  readonly spread: boolean;
  readonly nextAt: string | null;
}

export interface WireReview {
  readonly id: string;
  readonly grantId: string;
  readonly requestId: string;
  readonly person: WirePerson;
  readonly entitlements: readonly string[];
  readonly reason: string;
  readonly incident: string | null;
  readonly state: 'due' | 'closed';
  readonly dueAt: string;
  readonly overdue: boolean;
  readonly mayClose: boolean;
  readonly closedBy: WirePerson | null;
  readonly verdict: string | null;
  readonly notes: string | null;
}

/** The one answer that carries a secret. It goes to its reader and nowhere else. */
export interface WireClaim {
  readonly lease: string;
  readonly grant: string;
  readonly entitlement: string;
  readonly kind: string;
  readonly target: string;
  readonly handle: string;
  readonly expiresAt: string;
  readonly connection: Readonly<Record<string, string>>;
  readonly secret: Readonly<Record<string, string>>;
}

export interface WirePage<T> {
  readonly items: readonly T[];
  readonly next: string | null;
}

export interface WireLogin {
  readonly token: string;
  readonly expiresAt: string;
  readonly person: { readonly id: string; readonly name: string; readonly subject: string; readonly groups: readonly string[] };
}

export interface WireSystem {
  readonly targets: readonly {
    readonly target: string;
    readonly open: number;
    readonly due: number;
    readonly overdue: number;
    readonly oldestDueSeconds: number | null;
    readonly retrying: number;
    readonly nextTryAt: string | null;
    readonly tries: number | null;
    readonly why: string | null;
    readonly lastOkAt: string | null;
    readonly dueToCutP99Seconds: number | null;
  }[];
  readonly outbox: { readonly rows: number; readonly oldestSeconds: number | null };
  readonly log: { readonly waiting: number; readonly oldestSeconds: number | null; readonly sealedAt: string | null };
  readonly notices: { readonly waiting: number };
  readonly deliveries: readonly { readonly channel: string; readonly waiting: number; readonly failing: number; readonly why: string | null }[];
  readonly duties: readonly { readonly name: string; readonly process: string | null }[];
  readonly processes: readonly {
    readonly id: string;
    readonly host: string;
    readonly pid: number;
    readonly version: string;
    readonly roles: readonly ('web' | 'worker')[];
    readonly clockOffsetMs: number;
    readonly queue: 'memory' | 'redis' | null;
    readonly queueWaiting: number | null;
    readonly troubles: readonly string[];
  }[];
  readonly quarantinedAt: string | null;
  readonly readAt: string;
}

export interface WireQuarantine {
  readonly why: string;
  readonly beganAt: string;
  readonly comparedAt: string | null;
  readonly differences: {
    readonly found: readonly {
      readonly kind: 'unexplained' | 'missing' | 'unfinished';
      readonly target: string;
      readonly name: string;
      readonly endsAt: string | null;
    }[];
    readonly more: number;
    readonly unread: readonly { readonly target: string; readonly why: string }[];
  } | null;
}
