import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AuditEvent, auditEventTypes, auditLine } from '../../src/domain/audit-event.ts';
import type { Json } from '../../src/domain/canonical.ts';

const at = new Date('2026-03-01T12:00:00.250Z');
const id = 'evt_0190';

test('the line is RFC 8785 JSON with its version, id and time', () => {
  const event: AuditEvent = {
    type: 'request.denied',
    actor: { via: 'web', name: 'Ann', id: 'per_1' },
    request: 'req_1',
    grant: undefined,
    entitlements: ['b', 'a'],
    data: { reason: 'no', kept: undefined },
  };
  expect(auditLine(id, at, event)).toBe(
    '{"actor":{"id":"per_1","name":"Ann","via":"web"},"at":"2026-03-01T12:00:00.250Z","data":{"reason":"no"},"entitlements":["b","a"],"id":"evt_0190","request":"req_1","type":"request.denied","v":1}',
  );
});

describe('invariant 20: a line is one line', () => {
  const hostile = fc.string({
    unit: fc.constantFrom('\n', '\r', '\u2028', '\u2029', '\u0085', '\u0000', '\u001b', '\u202e', '"', '\\', '\ud800', '\udc00', 'a', 'é', '😀'),
  });
  const event = fc.record({
    type: fc.constant('decision.refused' as const),
    actor: fc.oneof(fc.record({ id: hostile, name: hostile, via: hostile }), fc.record({ system: hostile })),
    person: hostile,
    incident: fc.option(hostile, { nil: undefined }),
    entitlements: fc.array(hostile),
    data: fc.dictionary(hostile, fc.oneof(hostile, fc.array(hostile), fc.dictionary(hostile, hostile)) as fc.Arbitrary<Json>),
  });

  test('whatever is put in, and it says again what was put in', () => {
    fc.assert(
      fc.property(event, (given) => {
        const line = auditLine(id, at, given);
        expect(line).not.toMatch(/[\n\r\u0000-\u001f]/);
        expect(line.isWellFormed()).toBe(true);
        const read = JSON.parse(line) as { person: string; entitlements: string[]; actor: object };
        expect(read.person).toBe(given.person.toWellFormed());
        expect(read.entitlements).toEqual(given.entitlements.map((text) => text.toWellFormed()));
        expect(auditLine(id, at, JSON.parse(JSON.stringify(given)) as AuditEvent)).toBe(line);
      }),
    );
  });

  test('U+2028 stands as it is, as RFC 8785 §3.2.2.2 asks', () => {
    expect(auditLine(id, at, { type: 'login.refused', actor: { system: 'a\u2028b' } })).toContain('a\u2028b');
  });

  test('a message cut inside a character is witnessed with U+FFFD instead of stopping what it witnesses', () => {
    // Story: RFC 8785 refuses lone surrogates, so an error text cut at 200 units would have made recording the failed revocation itself fail.
    expect(auditLine(id, at, { type: 'lease.revocation-failed', actor: { system: 'w' }, data: { why: '😀'.slice(0, 1) } })).toContain('"why":"\ufffd"');
  });

  test('an event cannot give itself another id, time or version', () => {
    const forged = { type: 'login.refused', actor: { system: 'w' }, id: 'evt_x', at: 'never', v: 2 } as AuditEvent;
    expect(JSON.parse(auditLine(id, at, forged))).toMatchObject({ id, at: at.toISOString(), v: 1 });
  });
});

test('every type is noun.verb, as the database asks, and has a sentence', () => {
  for (const [type, sentence] of Object.entries(auditEventTypes)) {
    expect(type).toMatch(/^[a-z-]+\.[a-z-]+$/);
    expect(sentence).toMatch(/^\S.*\S$/);
  }
  expect(new Set(Object.values(auditEventTypes)).size).toBe(Object.keys(auditEventTypes).length);
});
