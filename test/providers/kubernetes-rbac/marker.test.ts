import { expect, test } from 'vitest';
import { leaseIn, leaseLabel, markerOf, nameOf, untilOf } from '../../../src/providers/kubernetes-rbac/marker.ts';

const lease = `lse_${'0123456789abcdef'.repeat(2)}`;
const labels = { [leaseLabel]: lease };

test('a name that Kubernetes takes, the same each time', () => {
  expect(nameOf(lease)).toBe(`hg-lse-${'0123456789abcdef'.repeat(2)}`);
  expect(nameOf(lease)).toMatch(/^[a-z0-9-]{1,63}$/);
});

test('only label and name together are our marker', () => {
  expect(leaseIn({ name: nameOf(lease), labels })).toBe(lease);
  expect(leaseIn({ name: `${nameOf(lease)}-1a2b3c4d`, labels })).toBe(lease);
  for (const name of ['innocent', `${nameOf(lease)}x`, `${nameOf(lease)}-long-er`, '']) expect(leaseIn({ name, labels }), name).toBeNull();
  const wrong: Record<string, string>[] = [{}, { [leaseLabel]: 'lse_x' }, { [leaseLabel]: `lse_${'f'.repeat(32)}` }];
  for (const other of wrong) expect(leaseIn({ name: nameOf(lease), labels: other })).toBeNull();
  expect(leaseIn({ name: nameOf(lease) })).toBeNull();
  expect(leaseIn(undefined)).toBeNull();
});

test('the end is read back as it was written; what is no instant is none', () => {
  const spec = {
    leaseId: lease,
    externalName: `hg_${lease}`,
    grantId: 'gnt_1',
    person: 'Ana\nTest\u202e (per_1)',
    endsAt: new Date('2026-11-24T04:12:07.123Z'),
    grant: {},
  };
  const marker = markerOf(spec);
  expect(untilOf(marker)).toEqual(spec.endsAt);
  expect(marker.annotations['halligan/person']).not.toContain('\n');
  for (const text of ['', 'never', '2026-13-45T99:99:99Z', '2026-11-24', '2026-11-24T04:12:07+02:00', '1e99'])
    expect(untilOf({ annotations: { 'halligan/until': text } }), text).toBeNull();
});
