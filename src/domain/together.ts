/** Work that costs much the same for one as for many, done for all who ask for it at about the same time. */

interface Sharing {
  /** So many items are done in one piece of work, at most. */
  readonly most: number;
  /** So many pieces of work run at a time. */
  readonly atOnce: number;
}

/**
 * Gives a function that does the work for one item, and does it together with whatever else is asked for meanwhile: `work`
 * gets the items that have gathered, and gives a promise for each, in their order; a piece of work runs until all of these
 * are settled, which must be soon, because the next may wait for it. An item that meets no other is done alone and at once.
 */
export function together<Item, Result>(
  { most, atOnce }: Sharing,
  work: (items: readonly Item[]) => readonly Promise<Result>[],
): (item: Item) => Promise<Result> {
  const waiting: { readonly item: Item; readonly give: (result: Promise<Result> | undefined) => void }[] = [];
  let running = 0;
  const next = (): void => {
    while (running < atOnce && waiting.length > 0) {
      const piece = waiting.splice(0, most);
      const results = work(piece.map(({ item }) => item));
      running++;
      for (const [index, { give }] of piece.entries()) give(results[index]);
      void Promise.allSettled(results).then(() => {
        running--;
        next();
      });
    }
  };
  return (item) =>
    new Promise<Result>((resolve) => {
      waiting.push({ item, give: (result) => resolve(result as Promise<Result>) });
      next();
    });
}

/** Each item's own promise, of work that is done for all in one go. When it fails for several, each is tried again alone: what one cannot do must not keep the others. */
export function eachOf<Item, Result>(items: readonly Item[], work: (items: readonly Item[]) => Promise<readonly Result[]>): Promise<Result>[] {
  const all = work(items);
  all.catch(() => undefined);
  return items.map(async (item, index) => {
    try {
      return (await all)[index] as Result;
    } catch (error) {
      if (items.length === 1) throw error;
      return (await work([item]))[0] as Result;
    }
  });
}
