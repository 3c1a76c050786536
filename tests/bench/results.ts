/** What measurements yield. */

import type { Row } from "./rows.ts";

/** Figures of one measurement, by name. */
export type Figures = Record<string, number>;

/** What came of one row. */
export interface RowResult {
  row: Row;
  /** Each server's measurements, by its name. */
  runs: Record<string, Figures[]>;
  /** What went wrong: with any of these, no figure of the row may be shown. */
  failures: string[];
}

/** The middle one of `values`. */
export function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** The median of `figure` over the runs of `server`, or undefined when it was not measured. */
export function figureOf(
  result: RowResult,
  server: string,
  figure: string,
): number | undefined {
  const runs = result.runs[server] ?? [];
  return runs.length === 0 ? undefined : median(runs.map((figures) => figures[figure]));
}

/** Cores that others may keep busy during a measurement. */
export const DISTURBED = 0.1;
