/** What one round of the reaper did at one target. Nothing in it is secret. */
export interface Reaped {
  /** What was ended, by its name there. */
  readonly ended: readonly string[];
  readonly sessionsCut: number;
  readonly notes: readonly string[];
  /** What could not be ended or judged, in words. */
  readonly faults: readonly string[];
}
