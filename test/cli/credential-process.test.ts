import { expect, test } from 'vitest';
import { credentialProcess } from '../../src/cli/credential-process.ts';

test('the members, their order and the instant are those of the specification', () => {
  const keys = { accessKeyId: 'ASIAEXAMPLE', secretAccessKey: 'a/secret+"quoted"', sessionToken: 'token==', expiresAt: new Date('2026-11-24T09:15:30.900Z') };
  expect(credentialProcess(keys)).toBe(
    '{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"a/secret+\\"quoted\\"","SessionToken":"token==","Expiration":"2026-11-24T09:15:30Z"}',
  );
});
