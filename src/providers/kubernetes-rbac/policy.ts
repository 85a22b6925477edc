/**
 * What the cluster itself refuses to Halligan's own service account, whatever Halligan may have become: bindings under
 * other names, without our label, without an end, to roles that no entitlement names, for other subjects; and the removal
 * of what is not ours. Validating admission policies (admissionregistration.k8s.io/v1, from Kubernetes 1.30) say it in CEL.
 */
import { type Grant, roleOf, type TargetConfig } from './config.ts';

const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
const list = (items: readonly string[]): string => `[${items.map(quote).join(', ')}]`;
const lease = `^lse_[0-9a-f]{32}$`;
const instant = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?Z$`;

interface Rule {
  readonly apiGroups: string[];
  readonly apiVersions: string[];
  readonly operations: string[];
  readonly resources: string[];
}
interface Validation {
  readonly expression: string;
  readonly message: string;
}

function policy(name: string, rules: readonly Rule[], users: readonly string[], validations: readonly Validation[]): object[] {
  const api = 'admissionregistration.k8s.io/v1';
  return [
    {
      apiVersion: api,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: { resourceRules: rules },
        matchConditions: [{ name: 'ours', expression: `request.userInfo.username in ${list(users)}` }],
        variables: [{ name: 'it', expression: `request.operation == 'DELETE' ? oldObject : object` }],
        validations,
      },
    },
    { apiVersion: api, kind: 'ValidatingAdmissionPolicyBinding', metadata: { name }, spec: { policyName: name, validationActions: ['Deny'] } },
  ];
}

const labelled = `has(variables.it.metadata.labels) && 'halligan/lease' in variables.it.metadata.labels && variables.it.metadata.labels['halligan/lease'].matches(${quote(lease)})`;
const ourName = `'hg-' + variables.it.metadata.labels['halligan/lease'].replace('_', '-')`;
const noChange: Validation = { expression: `request.operation != 'UPDATE'`, message: 'Halligan changes nothing that is there.' };
/** An end that lies ahead, and that can be read. */
const end = (when: string): Validation => ({
  expression: `!(${when}) || (has(object.metadata.annotations) && 'halligan/until' in object.metadata.annotations && object.metadata.annotations['halligan/until'].matches(${quote(instant)}) && timestamp(object.metadata.annotations['halligan/until']) > timestamp(object.metadata.creationTimestamp))`,
  message: 'Halligan makes nothing without an end that lies ahead, in the annotation halligan/until.',
});

/** The policies and their bindings, for these grants and for these service accounts (namespace/name). */
export function admissionPolicies(config: TargetConfig, grants: readonly Grant[], accounts: readonly string[]): object[] {
  const users = accounts.map((name) => `system:serviceaccount:${name.replace('/', ':')}`);
  const operations = ['CREATE', 'UPDATE', 'DELETE'];
  const bindings: Rule = { apiGroups: ['rbac.authorization.k8s.io'], apiVersions: ['*'], operations, resources: ['rolebindings', 'clusterrolebindings'] };
  const tokens: Rule = { apiGroups: [''], apiVersions: ['v1'], operations, resources: ['secrets', 'serviceaccounts', 'serviceaccounts/token'] };
  return [...policy('halligan-bindings', [bindings], users, bindingRules(config, grants)), ...policy('halligan-tokens', [tokens], users, tokenRules(config))];
}

function bindingRules(config: TargetConfig, grants: readonly Grant[]): Validation[] {
  const opened = [
    ...new Set(
      grants.map((grant) => `${grant.namespace ?? ''}/${roleOf(grant).kind}/${roleOf(grant).name}/${grant.mode === 'user' ? 'User' : 'ServiceAccount'}`),
    ),
  ];
  const space = `(has(object.metadata.namespace) ? object.metadata.namespace : '')`;
  const person = `object.subjects[0].kind == 'User' && object.subjects[0].name.startsWith(${quote(config.usernamePrefix)}) && !object.subjects[0].name.startsWith('system:')`;
  const account = `object.subjects[0].kind == 'ServiceAccount' && object.subjects[0].namespace == ${quote(config.tokenNamespace ?? '')} && object.subjects[0].name.startsWith(object.metadata.name + '-')`;
  const making = `request.operation == 'CREATE'`;
  return [
    noChange,
    {
      expression: `${labelled} && variables.it.metadata.name == ${ourName}`,
      message: 'Halligan makes and removes nothing but bindings that are named hg-<lease> and bear the label halligan/lease.',
    },
    end(making),
    {
      expression: `!(${making}) || (has(object.subjects) && size(object.subjects) == 1 && ((${person}) || (${account})))`,
      message: 'Halligan binds one person, or one service account of the very lease.',
    },
    {
      expression: `!(${making}) || (has(object.subjects) && size(object.subjects) == 1 && (${space} + '/' + object.roleRef.kind + '/' + object.roleRef.name + '/' + object.subjects[0].kind) in ${list(opened)})`,
      message: 'Halligan binds only the roles that its entitlements name, each in its namespace.',
    },
  ];
}

function tokenRules(config: TargetConfig): Validation[] {
  const token = `request.resource.resource == 'serviceaccounts' && has(request.subResource) && request.subResource == 'token'`;
  return [
    noChange,
    {
      expression: `request.namespace == ${quote(config.tokenNamespace ?? '')}`,
      message: `Halligan touches service accounts and Secrets ${config.tokenNamespace === undefined ? 'nowhere' : `in ${config.tokenNamespace} only`}.`,
    },
    {
      expression: `(${token}) || (${labelled} && variables.it.metadata.name.startsWith(${ourName} + '-'))`,
      message: 'Halligan makes and removes nothing but what is named hg-<lease>-… and bears the label halligan/lease.',
    },
    end(`request.operation == 'CREATE' && !(${token})`),
    {
      expression: `request.resource.resource != 'secrets' || request.operation == 'DELETE' || (object.type == 'Opaque' && !has(object.data))`,
      message: 'Halligan makes empty Secrets only, to bind tokens to.',
    },
    {
      expression: `!(${token}) || (request.name.matches('^hg-lse-[0-9a-f]{32}-[a-z0-9]{8}$') && has(object.spec.boundObjectRef) && object.spec.boundObjectRef.kind == 'Secret' && object.spec.boundObjectRef.name == request.name)`,
      message: 'Halligan asks for tokens of its own service accounts only, bound to their Secret.',
    },
  ];
}
