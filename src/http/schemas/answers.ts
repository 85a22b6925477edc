/** The forms of what goes out, as `/openapi.json` describes them; they follow the read-models. */
import { z } from 'zod';
import { at, person } from './common.ts';

export const entitlement = z.object({
  name: z.string(),
  opens: z.string(),
  target: z.string(),
  kind: z.string(),
  grant: z.string(),
  owner: z.string(),
  policy: z.array(z.string()),
  maxDuration: z.string(),
  breakGlassMaxDuration: z.string().nullable(),
  approvers: z.string(),
  mayAsk: z.boolean(),
  mayBreakGlass: z.boolean(),
  limits: z
    .object({
      newLogin: z.object({ alive: z.number(), dead: z.number().nullable() }),
      openSession: z.object({ alive: z.number(), dead: z.number().nullable() }),
    })
    .nullable(),
});

export const lease = z.object({
  id: z.string(),
  grantId: z.string(),
  entitlement: z.string(),
  target: z.string(),
  kind: z.string(),
  state: z.enum(['issuing', 'live', 'revoking', 'revoked', 'void']),
  handle: z.string(),
  expiresAt: at,
  createdAt: at,
  revealedAt: at.nullable(),
  endReason: z.string().nullable(),
  revokingAt: at.nullable(),
  cutAt: at.nullable(),
  readBackAt: at.nullable(),
  tries: z.int(),
  nextTryAt: at.nullable(),
  lastError: z.string().nullable(),
  overdue: z.boolean(),
});

export const grant = z.object({
  id: z.string(),
  requestId: z.string(),
  person,
  entitlements: z.array(z.string()),
  state: z.enum(['scheduled', 'active', 'ending', 'ended', 'cancelled']),
  breakGlass: z.boolean(),
  incident: z.string().nullable(),
  reason: z.string(),
  startsAt: at,
  endsAt: at,
  endReason: z.string().nullable(),
  endNote: z.string().nullable(),
  endedAt: at.nullable(),
  leases: z.array(lease),
  overdue: z.boolean(),
  review: z.object({ id: z.string(), state: z.enum(['due', 'closed']), dueAt: at, verdict: z.string().nullable() }).nullable(),
  readAt: at,
});

export const event = z.object({
  id: z.string(),
  index: z.int().nullable(),
  at,
  type: z.string(),
  actor: z.union([z.object({ id: z.string(), name: z.string(), via: z.string() }), z.object({ system: z.string() })]),
  person: person.nullable(),
  request: z.string().nullable(),
  grant: z.string().nullable(),
  lease: z.string().nullable(),
  incident: z.string().nullable(),
  entitlements: z.array(z.string()),
  data: z.record(z.string(), z.unknown()),
});

export const request = z.object({
  id: z.string(),
  state: z.enum(['pending', 'approved', 'denied', 'withdrawn', 'lapsed']),
  person,
  entitlements: z.array(
    z.object({
      name: z.string(),
      opens: z.string(),
      target: z.string(),
      kind: z.string(),
      grant: z.string(),
      owner: z.string(),
      policy: z.array(z.string()),
      described: z.object({ summary: z.string(), details: z.array(z.string()) }).nullable(),
      unreadable: z.string().nullable(),
    }),
  ),
  durationSeconds: z.int(),
  duration: z.string(),
  durationInWords: z.string(),
  reason: z.string(),
  incident: z.string().nullable(),
  startAt: at.nullable(),
  breakGlass: z.boolean(),
  createdAt: at,
  lapsesAt: at,
  decidedAt: at.nullable(),
  rules: z.array(z.object({ entitlement: z.string(), of: z.string(), count: z.int(), filled: z.int() })),
  decisions: z.array(z.object({ id: z.string(), person, decision: z.enum(['approve', 'deny']), reason: z.string(), via: z.string(), at })),
  deciders: z.array(person),
  decidersInWords: z.string(),
  mine: z.boolean(),
  mayDecide: z.boolean(),
  seen: z.string(),
  grant: grant.nullable(),
  story: z.array(event).optional(),
});

export const review = z.object({
  id: z.string(),
  grantId: z.string(),
  requestId: z.string(),
  person,
  entitlements: z.array(z.string()),
  reason: z.string(),
  incident: z.string().nullable(),
  state: z.enum(['due', 'closed']),
  dueAt: at,
  overdue: z.boolean(),
  grantEndedAt: at.nullable(),
  mayClose: z.boolean(),
  closedBy: person.nullable(),
  closedAt: at.nullable(),
  verdict: z.string().nullable(),
  notes: z.string().nullable(),
});

export const claimed = z.object({
  lease: z.string(),
  grant: z.string(),
  entitlement: z.string(),
  kind: z.string(),
  target: z.string(),
  handle: z.string(),
  expiresAt: at,
  connection: z.record(z.string(), z.string()),
  secret: z.record(z.string(), z.string()).describe('Shown in this answer only. Claiming again makes a new one and ends this one.'),
});
