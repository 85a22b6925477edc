/**
 * Whether IAM would allow a call, by an evaluator that we did not write (@cloud-copilot/iam-simulate). It is AGPL and is
 * therefore no dependency of Halligan: it is installed into the cache of the live suite, from the lock file beside this one.
 */
import { copyFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { installed, runTool } from '../servers/install.ts';

interface Simulation {
  readonly request: {
    principal: string;
    action: string;
    resource: { resource: string; accountId: string };
    contextVariables: Record<string, string | string[]>;
  };
  readonly sessionPolicy?: unknown;
  readonly identityPolicies: { name: string; policy: unknown }[];
  readonly serviceControlPolicies: never[];
  readonly resourceControlPolicies: never[];
  readonly resourcePolicy?: unknown;
}
interface Library {
  runSimulation(simulation: Simulation, options: object): Promise<{ resultType: string; overallResult?: string; errors?: unknown }>;
}

/** One call, and all the policies that speak to it. */
export interface Question {
  readonly principal: string;
  readonly account: string;
  readonly action: string;
  readonly resource: string;
  readonly context: Record<string, string | string[]>;
  readonly identity: readonly unknown[];
  readonly session?: unknown;
  /** The resource's own policy; for sts:AssumeRole the role's trust policy. */
  readonly onResource?: unknown;
}

export type Evaluator = (question: Question) => Promise<boolean>;

/** Throws when the evaluator finds a policy or a question malformed: that is a fault of what Halligan wrote, not a refusal. */
export async function openEvaluator(): Promise<Evaluator> {
  const folder = await installed('iam-evaluator-0.1.173', async (making) => {
    for (const file of ['package.json', 'package-lock.json']) await copyFile(resolve('test/live/iam-evaluator', file), join(making, file));
    await runTool('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: making });
  });
  const entry = join(folder, 'node_modules/@cloud-copilot/iam-simulate/dist/esm/index.js');
  const { runSimulation } = (await import(pathToFileURL(entry).href)) as Library;
  return async ({ principal, account, action, resource, context, identity, session, onResource }) => {
    const answer = await runSimulation(
      {
        request: { principal, action, resource: { resource, accountId: account }, contextVariables: context },
        identityPolicies: identity.map((policy, at) => ({ name: `policy-${at}`, policy })),
        serviceControlPolicies: [],
        resourceControlPolicies: [],
        ...(session === undefined ? {} : { sessionPolicy: session }),
        ...(onResource === undefined ? {} : { resourcePolicy: onResource }),
      },
      {},
    );
    if (answer.resultType === 'error') throw new Error(`the evaluator refuses the question: ${JSON.stringify(answer.errors)}`);
    return answer.overallResult === 'Allowed';
  };
}
