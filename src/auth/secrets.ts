/** Random secrets and how they rest: 256 bits each, and only their SHA-256 is kept, which needs no salt at that size. */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** 43 characters of base64url. */
export const newSecret = (): string => randomBytes(32).toString('base64url');

export const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();

/** Another secret that follows from this one and does not lead back to it (HMAC-SHA-256, 43 characters of base64url). */
export const derived = (secret: string, purpose: string): string => createHmac('sha256', secret).update(purpose).digest('base64url');

/** Compares without telling by its time where the difference is. */
export const sameSecret = (a: string, b: string): boolean => timingSafeEqual(hashOf(a), hashOf(b));

/** PKCE's S256 transformation (RFC 7636 §4.2). */
export const challengeOf = (verifier: string): string => hashOf(verifier).toString('base64url');
