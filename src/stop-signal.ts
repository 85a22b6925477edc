/** Ctrl-C and SIGTERM, heard once. One press of Ctrl-C can arrive twice, from the terminal and from a launcher or npm that passes it on, so what follows within a second is the same signal. */
const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof names)[number];
const sameMs = 1_000;

/** `first` hears the first signal; `again` every later one that is a signal of its own, and should leave at once. */
export function onStopSignal(first: (signal: StopSignal) => void, again: (signal: StopSignal) => void): void {
  let heardAt: number | undefined;
  for (const name of names) {
    process.on(name, () => {
      if (heardAt === undefined) {
        heardAt = performance.now();
        first(name);
      } else if (performance.now() - heardAt > sameMs) again(name);
    });
  }
}

/** 128 and the signal's number, as a shell says it. */
export const exitCodeOf = (signal: StopSignal): number => 128 + { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }[signal];
