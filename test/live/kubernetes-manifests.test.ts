/** The reaper's CronJobs, created at a real API server as they are shipped, and the pods that they would make, in a namespace that holds pods to the `restricted` standard. There is no kubelet: nothing is run. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { type Cluster, preparedCluster } from './kubernetes-cluster.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await preparedCluster();
  await cluster.kubernetes.kubectl(['label', 'namespace', 'halligan', 'pod-security.kubernetes.io/enforce=restricted']);
  // A controller would make it; there is none here.
  await cluster.kubernetes.kubectl(['create', 'serviceaccount', 'default', '--namespace=halligan']);
});
afterAll(() => cluster?.close());

interface Job {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly jobTemplate: { readonly spec: { readonly template: { readonly spec: Record<string, unknown> } } } };
}

test.each(['deploy/kubernetes/reaper.yaml', 'deploy/reaper/cronjob.yaml'])('%s is taken by the API server, and so is its pod', async (file) => {
  const text = await readFile(file, 'utf8');
  const created = await cluster.kubernetes.kubectl(['create', '--validate=strict', '--filename=-'], text);
  const [job, ...others] = parseAllDocuments(text)
    .map((document) => document.toJS() as Job)
    .filter(({ kind }) => kind === 'CronJob');
  expect(others).toEqual([]);
  expect(created).toContain(`cronjob.batch/${job?.metadata.name} created`);
  const stored = JSON.parse(await cluster.kubernetes.kubectl(['get', 'cronjob', job?.metadata.name ?? '', '--namespace=halligan', '--output=json'])) as Job;
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `${job?.metadata.name}-once`, namespace: 'halligan' },
    spec: stored.spec.jobTemplate.spec.template.spec,
  };
  // Admission, with the pod security standard and the service account, is asked; what it would not take, no Job could start.
  const answer = await cluster.kubernetes.api(cluster.kubernetes.adminToken, 'POST', '/api/v1/namespaces/halligan/pods?dryRun=All', pod);
  expect(answer.status, answer.text).toBe(201);
});
