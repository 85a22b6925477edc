/**
 * The verifier's account of entries of which the log has the hash and not the text. A restore from a backup loses what was
 * sealed after it; the log then says so itself, in an entry `log.continued` with the range. A lost text that no later entry
 * accounts for was taken away.
 */
import type { Losses } from './verify-entries.ts';

/** From the first index up to and with the last. */
export type LostRange = readonly [number, number];

export interface LossAccount extends Losses {
  /** The index of the entry at place 0 of the row that is being filled. */
  base: number;
  ranges(): readonly LostRange[];
  /** The first lost entry for which no `log.continued` accounts, or null. */
  unaccounted(): number | null;
}

const witness = Buffer.from('"type":"log.continued"');

/** An account without losses. */
export function newLossAccount(): LossAccount {
  const ranges: [number, number][] = [];
  const accounted: [number, number][] = [];
  const read = (line: Buffer): void => {
    if (!line.includes(witness)) return;
    try {
      const { type, data } = JSON.parse(line.toString('utf8')) as { type?: unknown; data?: { from?: unknown; to?: unknown } };
      if (type === 'log.continued' && Number.isSafeInteger(data?.from) && Number.isSafeInteger(data?.to))
        accounted.push([Number(data?.from), Number(data?.to)]);
    } catch {
      // No entry of ours: it accounts for nothing.
    }
  };
  const account: LossAccount = {
    base: 0,
    lost(place) {
      account.after = read;
      const index = account.base + place;
      const last = ranges.at(-1);
      if (last && last[1] === index - 1) last[1] = index;
      else ranges.push([index, index]);
    },
    ranges: () => ranges,
    unaccounted() {
      for (const [first, last] of ranges)
        for (let index = first; index <= last; index += 1) if (!accounted.some(([from, to]) => index >= from && index < to)) return index;
      return null;
    },
  };
  return account;
}
