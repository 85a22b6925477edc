/** Tables for people: columns aligned by display width, a header in capitals, no borders. */
import { cut, displayWidth, line } from './text.ts';

export interface Column<Row> {
  readonly title: string;
  readonly of: (row: Row) => string;
  /** Figures stand at the right of their column. */
  readonly right?: boolean;
}

const gap = '   ';

/** The lines of a table. With `width` the last column is cut to fit it (a terminal); without, nothing is left out (a pipe). Every cell is made safe. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], width?: number): string[] {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => columns.map((column) => line(column.of(row))))];
  const widths = columns.map((_, index) => Math.max(...cells.map((row) => displayWidth(row[index] ?? ''))));
  return cells.map((row) => {
    const text = row
      .map((cell, index) => {
        const fill = ' '.repeat(Math.max(0, (widths[index] ?? 0) - displayWidth(cell)));
        return columns[index]?.right ? `${fill}${cell}` : index === row.length - 1 ? cell : `${cell}${fill}`;
      })
      .join(gap)
      .trimEnd();
    return width === undefined ? text : cut(text, width);
  });
}
