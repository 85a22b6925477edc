/** Lists end: walked by their cursor, each thing comes once. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse();
});
afterAll(() => house?.close());

test('walking a list of more than fifty by its cursor gives each once, and ends', async () => {
  for (let index = 0; index < 60; index++) await ask(house, { by: 'oncall-2', reason: `number ${index}` });
  const other = await house.apiAs('oncall-2');
  for (const path of ['/requests?mine=true', '/audit/events?type=request.submitted']) {
    const ids: string[] = [];
    let cursor: string | null = '';
    let pages = 0;
    while (cursor !== null && pages < 30) {
      const page: { body: { items: { id: string }[]; next: string | null } } = await other.get(`${path}${cursor ? `&cursor=${cursor}` : ''}`);
      expect(page.body.items.length).toBeLessThanOrEqual(50);
      ids.push(...page.body.items.map((item) => item.id));
      cursor = page.body.next;
      pages++;
    }
    expect(cursor).toBeNull();
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThanOrEqual(60);
    expect([...ids].sort().reverse()).toEqual(ids);
  }
}, 60_000);
