/** Durations as people write them: `90s`, `90m`, `1h30m`, `2d`, or ISO 8601 (`PT1H30M`). A bare number is refused, because nobody can know its unit. */
import { Refusal } from './errors.ts';

const units = { d: 86_400, h: 3_600, m: 60, s: 1 } as const;
const short = /^(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?$/;
const iso = /^P(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?$/;

/** The most that can be said: what the store can hold, a little over 68 years. */
const most = 2 ** 31 - 1;

/** Seconds in `text`. Throws `duration_invalid` for anything else, for zero, for a bare number, and above 2³¹ − 1 seconds. */
export function parseDuration(text: string): number {
  const match = short.exec(text) ?? iso.exec(text);
  const parts = match?.slice(1) ?? [];
  const seconds = [units.d, units.h, units.m, units.s].reduce((sum, unit, i) => sum + unit * Number(parts[i] ?? 0), 0);
  if (match && seconds > 0 && seconds <= most) return seconds;
  const shown = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
  if (/^\d{1,6}$/.test(text) && Number(text) > 0) throw new Refusal('duration_invalid', `${shown} is not a duration: say ${text}s, ${text}m or 1h30m.`);
  if (match && seconds > most) throw new Refusal('duration_invalid', `${shown} is longer than Halligan can count: say ${formatDuration(most)} or less.`);
  if (match && text) throw new Refusal('duration_invalid', `${shown} is no time at all: say 15m or 1h30m.`);
  throw new Refusal('duration_invalid', `${shown} is not a duration: say 90s, 90m or 1h30m.`);
}

/** `5400` → `1h30m`: the shortest form that `parseDuration` reads back to the same seconds. */
export function formatDuration(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  let text = '';
  for (const [unit, size] of Object.entries(units)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) text += `${count}${unit}`;
  }
  return text || '0s';
}

/** `5400` → `1 hour 30 minutes`: for sentences. */
export function durationInWords(seconds: number): string {
  const words = { d: 'day', h: 'hour', m: 'minute', s: 'second' } as const;
  let rest = Math.max(0, Math.round(seconds));
  const parts: string[] = [];
  for (const [unit, size] of Object.entries(units) as [keyof typeof units, number][]) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${words[unit]}${count === 1 ? '' : 's'}`);
  }
  return parts.join(' ') || 'no time';
}
