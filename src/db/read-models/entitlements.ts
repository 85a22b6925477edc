/** What there is to ask for, as one person sees it. */
import { formatDuration } from '../../domain/duration.ts';
import { type Entitlement, peopleInWords, policyInWords } from '../../domain/entitlement.ts';
import { mayAsk, mayBreakGlass, mayDecide, mayReview } from '../../domain/policy.ts';
import type { Limits, Target } from '../../domain/provider.ts';
import { type Readers, seesEverything, type Viewer } from './viewer.ts';

export interface OfferedEntitlement {
  readonly name: string;
  readonly opens: string;
  readonly target: string;
  readonly kind: string;
  readonly grant: string;
  readonly owner: string;
  readonly policy: readonly string[];
  readonly maxDuration: string;
  readonly maxDurationSeconds: number;
  readonly breakGlassMaxDuration: string | null;
  readonly breakGlassMaxDurationSeconds: number | null;
  readonly approvers: string;
  readonly mayAsk: boolean;
  readonly mayBreakGlass: boolean;
  readonly limits: Limits | null;
}

/** How long an entitlement's access can outlive its grant; null when its target is not loaded. */
export function limitsOf(targets: ReadonlyMap<string, Target>, entitlement: Pick<Entitlement, 'target' | 'grant'>): Limits | null {
  const target = targets.get(entitlement.target);
  return target ? (target.limitsFor?.(entitlement.grant) ?? target.limits) : null;
}

/** Everything this person may ask for, decide or review; auditors and admins see all. In the config's order. */
export function offeredTo(
  loaded: ReadonlyMap<string, Entitlement>,
  targets: ReadonlyMap<string, Target>,
  readers: Readers,
  viewer: Viewer,
): OfferedEntitlement[] {
  const all = seesEverything(readers, viewer);
  return [...loaded.values()]
    .filter(
      (entitlement) =>
        all || mayAsk(entitlement, viewer) || mayBreakGlass(entitlement, viewer) || mayDecide([entitlement], viewer) || mayReview([entitlement], viewer),
    )
    .map((entitlement) => ({
      name: entitlement.name,
      opens: entitlement.opens,
      target: entitlement.target,
      kind: entitlement.kind,
      grant: entitlement.grantInWords,
      owner: entitlement.owner,
      policy: policyInWords(entitlement),
      maxDuration: formatDuration(entitlement.maxDurationSeconds),
      maxDurationSeconds: entitlement.maxDurationSeconds,
      breakGlassMaxDuration: entitlement.breakGlass ? formatDuration(entitlement.breakGlass.maxDurationSeconds) : null,
      breakGlassMaxDurationSeconds: entitlement.breakGlass?.maxDurationSeconds ?? null,
      approvers: entitlement.approval.map((rule) => `${rule.count} of ${peopleInWords(rule.of)}`).join(', and '),
      mayAsk: mayAsk(entitlement, viewer),
      mayBreakGlass: mayBreakGlass(entitlement, viewer),
      limits: limitsOf(targets, entitlement),
    }));
}
