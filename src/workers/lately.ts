/** Reading something that others ask for often: seldom, once at a time, and never for longer than they can wait. */

interface Limits {
  /** An answer is given again for so long, in milliseconds. */
  readonly keepMs: number;
  /** Nobody waits for longer, in milliseconds. */
  readonly deadlineMs: number;
}

/** `read`, with an answer that may be `keepMs` old; undefined when it fails or takes too long. One that takes too long is not asked again before it has ended. */
export function lately<T>(read: () => Promise<T>, { keepMs, deadlineMs }: Limits): () => Promise<T | undefined> {
  let last: { at: number; value: T } | undefined;
  let reading: Promise<T | undefined> | undefined;
  const start = async (): Promise<T | undefined> => {
    try {
      const value = await Promise.resolve().then(read);
      last = { at: performance.now(), value };
      return value;
    } catch {
      return undefined;
    } finally {
      reading = undefined;
    }
  };
  return async () => {
    if (last && performance.now() - last.at < keepMs) return last.value;
    reading ??= start();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, deadlineMs, undefined);
    });
    return Promise.race([reading, late]).finally(() => clearTimeout(timer));
  };
}
