/**
 * Faults at a target, and nothing else: a provider whose calls pass through to the real one unless a test has put
 * something in their way. The targets themselves are always real.
 */
import type { Gone, Issued, LeaseRef, LeaseSpec, Provider, Target } from '../../src/domain/provider.ts';

/** What a test may put in the way. Each gets the real call and decides when, and whether, it happens. */
export interface Faults {
  issue?: ((real: (spec?: LeaseSpec) => Promise<Issued>, spec: LeaseSpec, signal: AbortSignal) => Promise<Issued>) | undefined;
  /** Set: the target gives further credentials of a live lease, and this is the call. `real` makes the login of that name anew, which keeps its handle. */
  another?: ((real: () => Promise<Issued>, spec: LeaseSpec, signal: AbortSignal) => Promise<Issued>) | undefined;
  revoke?: ((real: () => Promise<Gone>, ref: LeaseRef, signal: AbortSignal) => Promise<Gone>) | undefined;
}

/** The real provider with `faults` in front, by the name of the target. `faults` may change at any time. */
export const providerDouble = (real: Provider, faultsOf: (target: string) => Faults): Provider => ({
  ...real,
  connect(name, config, options): Target {
    const target = real.connect(name, config, options);
    return {
      ...target,
      issue: (spec, signal) => {
        const call = (other = spec) => target.issue(other, signal);
        return faultsOf(name).issue?.(call, spec, signal) ?? call();
      },
      get another() {
        const { another } = faultsOf(name);
        return another && ((spec: LeaseSpec, signal: AbortSignal) => another(() => target.issue(spec, signal), spec, signal));
      },
      // With something in the way of `revoke` nothing is cut past it.
      cut: async (ref, signal) => (faultsOf(name).revoke ? null : ((await target.cut?.(ref, signal)) ?? null)),
      revoke: (ref, signal) => {
        const call = () => target.revoke(ref, signal);
        return faultsOf(name).revoke?.(call, ref, signal) ?? call();
      },
    };
  },
});

/** A door that stays shut until it is opened; `arrived` resolves when somebody stands before it. */
export function newGate(): { arrived: Promise<void>; pass(): Promise<void>; open(): void } {
  const arrived = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  return {
    arrived: arrived.promise,
    pass() {
      arrived.resolve();
      return opened.promise;
    },
    open: () => opened.resolve(),
  };
}
