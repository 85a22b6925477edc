/** `/openapi.json`, made from the same schemas that validate. */
import { z } from 'zod';
import { errorCodes } from '../domain/errors.ts';
import { statusOf } from './problem.ts';
import type { Route } from './route.ts';

const schemaOf = (schema: z.ZodType, io: 'input' | 'output'): object => {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as Record<string, unknown>;
  return json;
};

/** The description (OpenAPI 3.1) of these routes under `/api/v1`. */
export function openapi(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = `/api/v1${route.path.replaceAll(/:([A-Za-z]+)/g, '{$1}')}`;
    const entry = paths[path] ?? {};
    paths[path] = entry;
    entry[route.method] = {
      summary: route.summary,
      operationId: `${route.method}${route.path.replaceAll(/[^A-Za-z]+([A-Za-z])/g, (_, letter: string) => letter.toUpperCase())}`,
      security: route.auth === 'person' ? [{ bearer: [] }, { session: [] }] : [],
      parameters: [...parameters(route.params, 'path'), ...parameters(route.query, 'query')],
      ...(route.body ? { requestBody: { required: true, content: { 'application/json': { schema: schemaOf(route.body, 'input') } } } } : {}),
      responses: {
        [route.status ?? 200]: {
          description: 'done',
          ...(route.answer ? { content: { 'application/json': { schema: schemaOf(route.answer, 'output') } } } : {}),
        },
        default: {
          description: 'a problem (RFC 9457); a 401 for want of a fresher login carries the challenge of RFC 9470',
          content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        },
      },
    };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Halligan', version, description: 'Break-glass and just-in-time access.', license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' }, session: { type: 'apiKey', in: 'cookie', name: '__Host-halligan' } },
      schemas: {
        Problem: {
          type: 'object',
          required: ['type', 'title', 'status', 'code', 'detail'],
          properties: {
            type: { type: 'string' },
            title: { type: 'string' },
            status: { type: 'integer', enum: [...new Set(Object.values(statusOf))].sort() },
            code: { type: 'string', enum: Object.keys(errorCodes).sort() },
            detail: { type: 'string' },
            next: { type: 'string' },
            faults: { type: 'array', items: { type: 'object', properties: { path: { type: 'string' }, message: { type: 'string' } } } },
            maxAge: { type: 'integer', description: 'with step_up_required: the most seconds since the person proved who they are (RFC 9470, max_age)' },
            acrValues: { type: 'array', items: { type: 'string' }, description: 'with step_up_required: how they must have proved it (RFC 9470, acr_values)' },
            groupsMaxAge: { type: 'integer', description: 'the most seconds since their groups were read at the identity provider' },
          },
        },
      },
    },
  };
}

function parameters(schema: z.ZodType | undefined, where: 'path' | 'query'): object[] {
  if (!schema) return [];
  const json = schemaOf(schema, 'input') as { properties?: Record<string, object>; required?: string[] };
  return Object.entries(json.properties ?? {}).map(([name, property]) => ({
    name,
    in: where,
    required: where === 'path' || (json.required ?? []).includes(name),
    schema: property,
  }));
}
