/** What a login must prove, as the server's login pages and its login API take it. */
import type { LoginNeed } from '../domain/errors.ts';

/** As parameters: `max_age` and `groups_max_age` in seconds, `acr_values` separated by spaces. */
export const needParameters = ({ maxAgeSeconds, acrValues, groupsMaxAgeSeconds }: LoginNeed) => ({
  ...(maxAgeSeconds === undefined ? {} : { max_age: maxAgeSeconds }),
  ...(acrValues === undefined ? {} : { acr_values: acrValues.join(' ') }),
  ...(groupsMaxAgeSeconds === undefined ? {} : { groups_max_age: groupsMaxAgeSeconds }),
});
