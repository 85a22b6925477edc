/**
 * Our marker on what we make in a cluster. Names must be RFC 1123, so `hg_lse_…` becomes `hg-lse-…`: that is the name of
 * the lease's binding, and the beginning of the names of its service account and Secret. The label `halligan/lease` holds
 * the lease id, the annotation `halligan/until` the end. What lacks name and label is not ours and is never touched.
 */
import type { LeaseRef, LeaseSpec } from '../../domain/provider.ts';

export const leaseLabel = 'halligan/lease';
export const grantLabel = 'halligan/grant';
export const untilAnnotation = 'halligan/until';
export const personAnnotation = 'halligan/person';

/** The name of the lease's binding. */
export const nameOf = (leaseId: string): string => `hg-${leaseId.replace('_', '-')}`;

interface Meta {
  readonly name?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Labels and annotations of everything that belongs to a lease. */
export const markerOf = (spec: LeaseSpec): { labels: Record<string, string>; annotations: Record<string, string> } => ({
  labels: { [leaseLabel]: spec.leaseId, [grantLabel]: spec.grantId },
  annotations: { [untilAnnotation]: spec.endsAt.toISOString(), [personAnnotation]: oneLine(spec.person) },
});

/** The lease that an object belongs to, by its label and its name together; null when it does not bear our marker. */
export function leaseIn(meta: Meta | undefined): string | null {
  const lease = meta?.labels?.[leaseLabel] ?? '';
  if (!/^lse_[0-9a-f]{32}$/.test(lease)) return null;
  const name = meta?.name ?? '';
  return name === nameOf(lease) || (name.startsWith(`${nameOf(lease)}-`) && /^[a-z0-9]{8}$/.test(name.slice(nameOf(lease).length + 1))) ? lease : null;
}

/** The end that is written on an object, or null when there is none that can be read. */
export function untilOf(meta: Meta | undefined): Date | null {
  const text = meta?.annotations?.[untilAnnotation] ?? '';
  const at = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(text) ? new Date(text) : null;
  return at && !Number.isNaN(at.getTime()) ? at : null;
}

/** The lease as Halligan names it. */
export const refOf = (leaseId: string): LeaseRef => ({ leaseId, externalName: `hg_${leaseId}` });

/** One line, without control characters, at most 300 long: names and messages in a cluster may be chosen by its users. */
export const oneLine = (text: string): string => {
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
};
