/** A story for tests of one channel, without a house. */

import type { RequestView } from '../../src/db/read-models/requests.ts';
import { newId } from '../../src/domain/ids.ts';
import type { Delivery, Story } from '../../src/notify/channel.ts';

export const newDelivery = (more: Partial<Delivery> = {}): Delivery => ({
  id: newId('delivery'),
  channel: 'email',
  form: 'card',
  address: 'lead@example.com',
  personId: null,
  cardRef: null,
  tries: 0,
  ...more,
});

export const newRequestView = (more: Partial<RequestView> = {}): RequestView => ({
  id: newId('request'),
  state: 'pending',
  person: { id: newId('person'), name: 'On-call engineer' },
  entitlements: [
    {
      name: 'orders-readonly',
      opens: 'read the orders database',
      target: 'orders-db',
      kind: 'postgres',
      grant: 'role orders_ro',
      owner: 'the orders team',
      policy: ['1 of leads'],
      described: { summary: 'SELECT on 3 tables of orders', details: [] },
      unreadable: null,
    },
  ],
  durationSeconds: 3_600,
  duration: '1h',
  durationInWords: '1 hour',
  reason: 'the payments queue grows',
  incident: 'INC-7',
  startAt: null,
  breakGlass: false,
  createdAt: new Date('2026-01-31T03:00:00Z'),
  lapsesAt: new Date('2026-01-31T03:30:00Z'),
  decidedAt: null,
  rules: [],
  decisions: [],
  deciders: [],
  decidersInWords: '1 of leads',
  mine: false,
  mayDecide: false,
  seen: '0'.repeat(64),
  grant: null,
  ...more,
});

export const newStory = (more: Partial<Story> = {}): Story => {
  const request = more.request ?? newRequestView();
  return {
    noticeId: newId('notice'),
    type: 'request.submitted',
    at: new Date('2026-01-31T03:00:00Z'),
    grantId: null,
    leaseId: null,
    url: `https://halligan.example.com/requests/${request.id}`,
    ...more,
    request,
  };
};
