/** What every command gets: everything it may touch, and nothing global. */
import type pg from 'pg';
import type { Logger } from 'pino';
import type { Change } from '../db/announce.ts';
import type { Db } from '../db/pool.ts';
import type { Entitlement, People } from '../domain/entitlement.ts';
import type { Member } from '../domain/policy.ts';
import type { Target } from '../domain/provider.ts';
import type { Observe } from './observed.ts';

/** A person who acts, through which surface, and how they logged in. */
export interface PersonActor extends Member {
  readonly name: string;
  /** `device` logins may ask and claim, but not decide. */
  readonly via: 'web' | 'cli' | 'device' | 'api' | 'slack';
  /** The session or token, so that it can be ended. Public id. */
  readonly loginId: string;
  /** When they last proved who they are at the identity provider (`auth_time`). The beginning of time for Slack, which proves nothing of the kind. */
  readonly authAt: Date;
  /** How they proved it (`acr`), where the provider said so. */
  readonly acr?: string | null;
}

/** The loaded policy, replaced whole when the config changes. */
export interface Policy {
  readonly entitlements: ReadonlyMap<string, Entitlement>;
  readonly auditors: People;
  readonly admins: People;
  readonly maxPendingPerPerson: number;
  /** Groups read at the identity provider longer ago than this are read again before a decision or a break-glass. */
  readonly groupsMaxAgeSeconds: number;
}

export interface Ctx {
  readonly db: Db;
  readonly pool: pg.Pool;
  readonly targets: ReadonlyMap<string, Target>;
  readonly policy: Policy;
  readonly log: Logger;
  /** Told after each commit what it changed, so that nobody has to wait for a sweep. */
  readonly nudge: (change?: Change) => void;
  /** Whether anybody is to be told of what happens, by Slack, mail or a webhook. Without a place to tell it, nothing is written down for it. */
  readonly tells?: boolean;
  /** Told of what happened, for the metrics of this process; only where there are any. */
  readonly observe?: Observe | undefined;
}
