/**
 * What a process may be told of for its metrics: counts and seconds, with names of targets, duties and codes. Nobody's
 * name and no id is in it, so none can get into a label. Observing is a function call; whoever is told only adds up.
 */
import type { AuditEvent } from '../domain/audit-event.ts';

export type Observed =
  /** Access was cut at its target, so long after it was due. */
  | { readonly what: 'cut'; readonly target: string; readonly seconds: number }
  /** A try to end access failed and is made again. */
  | { readonly what: 'retry'; readonly target: string; readonly code: string }
  /** A claim came to its end: `given`, or the code of its refusal. `target` is undefined for an entitlement that nobody knows. */
  | { readonly what: 'claim'; readonly target: string | undefined; readonly outcome: string }
  /** Events were committed; of each only the type, and the code of a refusal, is counted. */
  | { readonly what: 'events'; readonly events: readonly Pick<AuditEvent, 'type' | 'data'>[] }
  /** A duty had one run. */
  | { readonly what: 'duty'; readonly duty: string; readonly seconds: number; readonly ok: boolean };

export type Observe = (seen: Observed) => void;
