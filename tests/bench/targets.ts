/** What Parley is to reach, held against what was measured. */

import { DISTURBED, figureOf, type RowResult } from "./results.ts";

/** A target and how it came out. */
export interface Verdict {
  target: string;
  /** The figures it was judged by. */
  measured: string;
  met: boolean;
}

interface Target {
  row: string;
  figure: string;
  /** Server that is judged, and the one it is judged by; none for an absolute bound. */
  servers: [judged: string, by?: string];
  /** The bound: on the quotient, on the difference or on the figure itself. */
  bound: { atLeast?: number; atMost?: number; more?: number; bytes?: number };
}

const least = (row: string, servers: [string, string], atLeast: number) => ({
  row,
  figure: "perSecond",
  servers,
  bound: { atLeast },
} satisfies Target);

const COMMON = ["32x32", "200x200", "10→1000"];

const TARGETS: Target[] = [
  ...[32, 200, 1000].map((count) => least(`echo ${count}`, ["parley", "control"], 0.95)),
  ...COMMON.map((shape) => least(`chat ${shape}`, ["parley", "control"], 0.95)),
  least("chat 32x32", ["parley-v1", "bun"], 1),
  least("chat 200x200", ["parley-v1", "bun"], 2.5),
  least("chat 10→1000", ["parley-v1", "bun"], 1.2),
  ...["32x32", "10→1000"].flatMap((shape) =>
    ["parley", "parley-v1"].map((server): Target => ({
      row: `latency ${shape}`,
      figure: "p99",
      servers: [server, "control"],
      bound: { atMost: 1.2 },
    }))
  ),
  ...[["p99", 2], ["cpu", 1.3]].map(([figure, atMost]): Target => ({
    row: "latency 100 rooms of 100",
    figure: String(figure),
    servers: ["parley-v1", "control"],
    bound: { atMost: Number(atMost) },
  })),
  ...["parley", "parley-v1"].map((server): Target => ({
    row: "idle 10000",
    figure: "seconds",
    servers: [server, "control"],
    bound: { atMost: 1.15 },
  })),
  ...COMMON.map((shape) => least(`socket ${shape}`, ["parley-unix", "parley"], 1.8)),
  ...["parley", "parley-v1"].map((server): Target => ({
    row: "idle 10000",
    figure: "bytes",
    servers: [server, "control"],
    bound: { more: 2048 },
  })),
  ...Object.entries({ "64 B": 64, "1 kB": 1024, Korean: 64 }).map((
    [label, bytes],
  ): Target => ({
    row: `history ${label}`,
    figure: "bytes",
    servers: ["parley-v1"],
    bound: { bytes: 2 * bytes + 200 },
  })),
];

const say = (value: number) =>
  value >= 100 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3)).toString();

function judge(target: Target, value: number, by: number): Verdict {
  const { row, figure, servers: [judged, other], bound } = target;
  const figures = other ? `${say(value)} against ${say(by)}` : `${say(value)}`;
  const what = `${row}, ${figure}: ${judged}`;
  if (bound.atLeast !== undefined) {
    return {
      target: `${what} ≥ ${bound.atLeast} × ${other}`,
      measured: `${(value / by).toFixed(2)} × (${figures})`,
      met: value / by >= bound.atLeast,
    };
  }
  if (bound.atMost !== undefined) {
    return {
      target: `${what} ≤ ${bound.atMost} × ${other}`,
      measured: `${(value / by).toFixed(2)} × (${figures})`,
      met: value / by <= bound.atMost,
    };
  }
  if (bound.more !== undefined) {
    return {
      target: `${what} ≤ ${other} + ${bound.more}`,
      measured: `+${say(value - by)} (${figures})`,
      met: value - by <= bound.more,
    };
  }
  return {
    target: `${what} ≤ ${bound.bytes}`,
    measured: figures,
    met: value <= (bound.bytes ?? 0),
  };
}

/** Judges every target whose row was measured without a failure. */
export function judgeTargets(results: RowResult[]): Verdict[] {
  return TARGETS.flatMap((target) => {
    const result = results.find(({ row }) => row.name === target.row);
    if (!result || result.failures.length > 0) return [];
    const [judged, by] = target.servers;
    const value = figureOf(result, judged, target.figure);
    const other = by ? figureOf(result, by, target.figure) : 0;
    if (value === undefined || other === undefined) return [];
    const verdict = judge(target, value, other);
    const disturbed = [judged, by ?? judged].some((server) =>
      (figureOf(result, server, "othersBusy") ?? 0) > DISTURBED
    );
    if (disturbed) verdict.measured += " ‡";
    return [verdict];
  });
}
