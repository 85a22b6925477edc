/** Logging in over HTTP, for tests of any room. The work is done where the demo does it. */
export { approachCallback, type Browserless, cliTokenFor, csrfOf, locationOf, loginAs, newBrowserless } from '../../src/demo/browserless.ts';
