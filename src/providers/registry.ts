/** The kinds of target that Halligan knows. Each is loaded only when a config names it, because some bring large libraries. */
import type { Provider } from '../domain/provider.ts';

export const providers: Readonly<Record<string, () => Promise<Provider>>> = {
  postgres: async () => (await import('./postgres.ts')).postgres,
  'aws-sts': async () => (await import('./aws-sts.ts')).awsSts,
  'vault-database': async () => (await import('./vault-database.ts')).vaultDatabase,
  'kubernetes-rbac': async () => (await import('./kubernetes-rbac.ts')).kubernetesRbac,
};

/** The provider of this kind, or undefined when there is none. */
export const providerOf = async (kind: string): Promise<Provider | undefined> => (Object.hasOwn(providers, kind) ? providers[kind]?.() : undefined);
