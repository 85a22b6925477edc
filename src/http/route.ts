/** A route of the API as one value: what it takes, what it gives, and what it does. The router, the OpenAPI description and the authorization test are all made from the same table. */
import type { Request, Response } from 'express';
import type { z } from 'zod';
import type { Ctx, PersonActor } from '../commands/context.ts';

export interface Call<B, Q, P> {
  readonly ctx: Ctx;
  readonly actor: PersonActor;
  readonly body: B;
  readonly query: Q;
  readonly params: P;
  readonly request: Request;
  readonly response: Response;
}

export interface Route<B extends z.ZodType = z.ZodType, Q extends z.ZodType = z.ZodType, P extends z.ZodType = z.ZodType> {
  readonly method: 'get' | 'post' | 'delete';
  /** Below `/api/v1`, in Express' form. */
  readonly path: string;
  readonly summary: string;
  /** `none` is for what must work before a login. */
  readonly auth: 'person' | 'none';
  readonly body?: B;
  readonly query?: Q;
  readonly params?: P;
  /** The form of the answer; left out when the handler writes the response itself. */
  readonly answer?: z.ZodType;
  readonly status?: number;
  /** Ending access has no cap. */
  readonly unlimited?: boolean;
  handle(call: Call<z.output<B>, z.output<Q>, z.output<P>>): Promise<unknown>;
}

/** Keeps the types of the schemas together with the handler that uses them. */
export const route = <B extends z.ZodType = z.ZodUndefined, Q extends z.ZodType = z.ZodUnknown, P extends z.ZodType = z.ZodUnknown>(
  definition: Route<B, Q, P>,
): Route => definition as unknown as Route;
