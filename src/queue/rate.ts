/** How often the jobs of a lane may begin in this process: a bucket that fills steadily and holds no more than a second's worth. */

export interface Rate {
  /** Takes a place and gives 0, or gives the milliseconds until there is one. */
  take(): number;
}

/** So many jobs a second, on average and from one second to the next; undefined: as many as there are. `now` is in milliseconds and never steps back. */
export function rateOf(perSecond: number | undefined, now: () => number = () => performance.now()): Rate {
  if (perSecond === undefined) return { take: () => 0 };
  const most = Math.max(1, perSecond);
  let there = most;
  let at = now();
  return {
    take() {
      there = Math.min(most, there + ((now() - at) / 1_000) * perSecond);
      at = now();
      // What floating point leaves over is not waited for.
      if (there < 1 - 1e-9) return Math.ceil(((1 - there) / perSecond) * 1_000);
      there -= 1;
      return 0;
    },
  };
}
