/** What browsers, terminals and identity providers send as text, made safe to keep: where to return to, and names. */

/** A path of ours, or `/`. Anything that a browser could read as another host, and any control character, is refused. */
export function safeReturnTo(value: unknown): string {
  if (typeof value !== 'string' || value.length > 2000) return '/';
  if (!value.startsWith('/') || value.startsWith('//') || value.includes('\\') || /\p{Cc}/u.test(value)) return '/';
  const base = 'https://here.invalid';
  const url = URL.canParse(value, base) ? new URL(value, base) : undefined;
  // The parsed path can still be `//…` after `/.//`: what is sent out must not.
  if (!url || url.origin !== base || url.pathname.startsWith('//')) return '/';
  return `${url.pathname}${url.search}`;
}

/** One line of visible text, at most `max` characters: controls, line ends and bidi overrides are dropped. */
export const plainLine = (value: unknown, max: number): string =>
  typeof value === 'string'
    ? [
        ...value
          .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, ' ')
          .replace(/\s+/g, ' ')
          .trim(),
      ]
        .slice(0, max)
        .join('')
    : '';

/** A browser's User-Agent in a few words, for the list of logins. */
export function agentInWords(userAgent: string | undefined): string {
  const agent = plainLine(userAgent, 400);
  const browser = /Edg\//.test(agent)
    ? 'Edge'
    : /Firefox\//.test(agent)
      ? 'Firefox'
      : /Chrom(e|ium)\//.test(agent)
        ? 'Chrome'
        : /Safari\//.test(agent)
          ? 'Safari'
          : '';
  const system = /Android/.test(agent)
    ? 'Android'
    : /iPhone|iPad/.test(agent)
      ? 'iOS'
      : /Windows/.test(agent)
        ? 'Windows'
        : /Mac OS/.test(agent)
          ? 'macOS'
          : /Linux/.test(agent)
            ? 'Linux'
            : '';
  return [browser || 'A browser', system && `on ${system}`].filter(Boolean).join(' ');
}
