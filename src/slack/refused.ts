/** Calls that claim to come from Slack and are not accepted: one event a minute for each reason, with a count, so that nobody can fill the log with them. */
import { commit } from '../commands/commit.ts';
import type { Ctx } from '../commands/context.ts';
import type { ErrorCode } from '../domain/errors.ts';

export type RefusedFor = 'signature' | 'stale' | 'replayed' | 'workspace' | 'app' | 'unreadable' | 'handle' | 'unlinked' | 'link-code';

export interface RefusedCalls {
  /** Counts one refused call. Never throws. */
  note(reason: RefusedFor, more?: { readonly person?: string; readonly account?: string; readonly code?: ErrorCode }): Promise<void>;
  /** Writes what was counted and not yet written. */
  flush(): Promise<void>;
}

const windowMs = 60_000;

/** The counter of one process. */
export function refusedCalls(ctx: Pick<Ctx, 'db' | 'log' | 'nudge' | 'tells'>): RefusedCalls {
  const counted = new Map<string, { since: number; more: number; reason: RefusedFor }>();
  const write = async (reason: RefusedFor, count: number, more: { person?: string; account?: string; code?: ErrorCode } = {}): Promise<void> => {
    const { person, account, code } = more;
    await commit(ctx, { system: 'slack' }, async (tx) =>
      tx.witness({ type: 'slack.refused', person, data: { code: code ?? 'slack_refused', reason, count, account } }),
    ).catch((error: unknown) =>
      ctx.log.error({ code: 'slack_refusal_not_recorded', why: (error as Error).message }, 'a refused call from Slack was not recorded'),
    );
  };
  return {
    async note(reason, more = {}) {
      const key = more.person ? `${reason} ${more.person}` : reason;
      const known = counted.get(key);
      if (known && Date.now() - known.since < windowMs) {
        known.more += 1;
        return;
      }
      counted.set(key, { since: Date.now(), more: 0, reason });
      if (counted.size > 1_000) counted.clear();
      ctx.log.warn({ code: 'slack_refused', reason }, `a call that claims to come from Slack was refused: ${reason}`);
      await write(reason, 1 + (known?.more ?? 0), more);
    },
    async flush() {
      const open = [...counted.values()].filter(({ more }) => more > 0);
      counted.clear();
      for (const { reason, more } of open) await write(reason, more);
    },
  };
}
