/** What is found in Redis is a job only when all of it has the form of one. */
import { expect, test } from 'vitest';
import { jobIn, laneName, payloadOf } from '../../src/queue/payload.ts';
import { type Job, jobId } from '../../src/queue/port.ts';

const subject = `lse_${'0'.repeat(32)}`;
const job: Job = { id: jobId('revoke-lease', subject, 3), kind: 'revoke-lease', lane: 'target:orders-db', dueAt: new Date(1_234), subject, epoch: 3 };
const found = { id: job.id, name: job.kind, data: payloadOf(job) };

test('a job comes back as it was put in, and holds ids, an epoch and a time', () => {
  expect(jobIn(job.lane, JSON.parse(JSON.stringify(found)) as typeof found)).toEqual(job);
  expect(Object.keys(payloadOf(job))).toEqual(['subject', 'epoch', 'due']);
});

test.for([
  ['another kind', { ...found, name: 'issue-lease' }],
  ['a name of every object', { ...found, name: 'constructor' }],
  ['another id', { ...found, id: `${found.id}0` }],
  ['no id', { ...found, id: undefined }],
  ['no data', { ...found, data: null }],
  ['a text', { ...found, data: 'subject' }],
  ['a subject that is no text', { ...found, data: { ...found.data, subject: [subject] } }],
  ['a subject with other characters', { ...found, id: jobId('revoke-lease', "a'b", 3), data: { ...found.data, subject: "a'b" } }],
  ['a long subject', { ...found, id: jobId('revoke-lease', 'a'.repeat(101), 3), data: { ...found.data, subject: 'a'.repeat(101) } }],
  ['an epoch below nothing', { ...found, id: jobId('revoke-lease', subject, -1), data: { ...found.data, epoch: -1 } }],
  ['half an epoch', { ...found, id: jobId('revoke-lease', subject, 0.5), data: { ...found.data, epoch: 0.5 } }],
  ['an epoch in words', { ...found, data: { ...found.data, epoch: '3' } }],
  ['a time beyond all dates', { ...found, data: { ...found.data, due: 1e300 } }],
  ['no time', { ...found, data: { ...found.data, due: Number.NaN } }],
] as const)('%s is no job', ([, other]) => {
  expect(jobIn(job.lane, other)).toBeUndefined();
});

test('names of lanes hold no colon and are a hash tag', () => {
  expect([laneName('expiry'), laneName('target:orders-db')]).toEqual(['{expiry}', '{target.orders-db}']);
});
