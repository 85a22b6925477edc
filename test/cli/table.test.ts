import { expect, test } from 'vitest';
import { table } from '../../src/cli/table.ts';

const columns = [
  { title: 'WHAT', of: (row: readonly string[]) => row[0] ?? '' },
  { title: 'LEFT', of: (row: readonly string[]) => row[1] ?? '', right: true },
  { title: 'WHY', of: (row: readonly string[]) => row[2] ?? '' },
];

test('columns are aligned by display width, figures at the right, without trailing space', () => {
  expect(
    table(columns, [
      ['orders', '41:12', 'checkout'],
      ['日本', '1:02:09', ''],
    ]),
  ).toEqual(['WHAT        LEFT   WHY', 'orders     41:12   checkout', '日本     1:02:09']);
});

test('a terminal gets lines that fit it; a pipe gets everything', () => {
  const rows = [['orders', '41:12', 'a reason that goes on for longer than the window is wide']];
  expect(table(columns, rows, 30)[1]).toBe('orders   41:12   a reason tha…');
  expect(table(columns, rows)[1]).toContain('window is wide');
});

test('a cell cannot break out of its row', () => {
  expect(table(columns, [['orders', '1', 'x\nroot   9:59   granted\u001b[1A']])[1]).toBe('orders      1   x ⏎ root   9:59   granted\\u001b[1A');
});
