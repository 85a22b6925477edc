/** What the development identity provider remembers: in memory, so that nothing is left when it ends. */
import type { Adapter, AdapterPayload } from 'oidc-provider';

interface Kept {
  readonly payload: AdapterPayload;
  readonly goneAt: number;
}

/** An adapter factory over one map, shared by every model. Entries go when their time is up or at 5,000 entries, oldest first. */
export function memoryAdapter(): (model: string) => Adapter {
  const kept = new Map<string, Kept>();
  const read = (key: string): AdapterPayload | undefined => {
    const entry = kept.get(key);
    if (entry && entry.goneAt > Date.now()) return entry.payload;
    kept.delete(key);
    return undefined;
  };
  const findBy = (model: string, property: 'uid' | 'userCode', value: string) => {
    for (const [key, { payload }] of kept) {
      if (key.startsWith(`${model}:`) && payload[property] === value) return read(key);
    }
    return undefined;
  };
  return (model) => ({
    async upsert(id, payload, expiresIn) {
      kept.delete(`${model}:${id}`);
      kept.set(`${model}:${id}`, { payload, goneAt: expiresIn ? Date.now() + expiresIn * 1000 : Number.POSITIVE_INFINITY });
      while (kept.size > 5000) kept.delete(kept.keys().next().value ?? '');
    },
    find: async (id) => read(`${model}:${id}`),
    findByUid: async (uid) => findBy(model, 'uid', uid),
    findByUserCode: async (code) => findBy(model, 'userCode', code),
    async consume(id) {
      const payload = read(`${model}:${id}`);
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
    },
    async destroy(id) {
      kept.delete(`${model}:${id}`);
    },
    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of kept) if (payload.grantId === grantId) kept.delete(key);
    },
  });
}
