/** Waiting for Redis no longer than one should, and what its errors say to a person. */

/** The promise, or an error after so many milliseconds; what comes later is dropped. */
export async function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms)))]);
  } finally {
    clearTimeout(timer);
  }
}

/** What a client's error says, in one line; never what was sent. */
export function wordsOf(error: unknown): string {
  const { message, code, lastNodeError, errors } = error as { message?: string; code?: string; lastNodeError?: Error; errors?: Error[] };
  if (lastNodeError) return wordsOf(lastNodeError);
  if (errors?.[0]) return wordsOf(errors[0]);
  if (/^Protocol error|^Unknown RESP type/.test(message ?? '')) return 'what answers there does not speak as Redis does';
  return (message || code || 'no answer').split('\n')[0]?.slice(0, 200) ?? '';
}

/** What a person should look at; empty when the error says enough. */
export function hint(why: string): string {
  if (/WRONGPASS|NOAUTH|invalid password|invalid username/i.test(why)) return 'Is the password right (redis.passwordFile, redis.username)?';
  if (/speak as Redis/.test(why)) return 'Is redis.url right?';
  if (/^OOM/.test(why)) return 'Its memory is full.';
  if (/READONLY/.test(why)) return 'It is a replica: redis.url must lead to the primary.';
  if (/NOPERM/.test(why)) return 'Its user may do too little: docs/operations.md says what it needs.';
  return '';
}
