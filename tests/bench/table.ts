/** Prints what was measured as Markdown. */

import { DISTURBED, figureOf, type RowResult } from "./results.ts";
import type { Row } from "./rows.ts";
import type { Server } from "./servers.ts";

/** One figure of a kind of row: a line of the table for each row. */
interface Metric {
  figure: string;
  /** What stands behind the row's name. */
  label: string;
  /** Which figure is the better one; left out, none is, and no ratio is shown. */
  better?: "more" | "less";
  format(value: number): string;
}

/** Three significant digits, with k and M. */
export function short(value: number): string {
  for (const [unit, size] of [[" M", 1e6], [" k", 1e3]] as const) {
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** Three significant digits of milliseconds. */
const ms = (value: number) =>
  `${value < 100 ? value.toPrecision(3) : Math.round(value).toLocaleString("en")} ms`;
const rate: Metric = {
  figure: "perSecond",
  label: "",
  better: "more",
  format: short,
};
const latency = (figure: string, label: string): Metric => ({
  figure,
  label,
  better: "less",
  format: ms,
});
const bytes: Metric = {
  figure: "bytes",
  label: "bytes each",
  better: "less",
  format: (value) => Math.round(value).toLocaleString("en"),
};

const METRICS: Record<Row["kind"], Metric[]> = {
  echo: [rate],
  chat: [rate],
  unix: [rate],
  latency: [
    latency("p50", "p50"),
    latency("p99", "p99"),
    latency("p999", "p99.9"),
    latency("max", "max"),
    { figure: "cpu", label: "cores in use", better: "less", format: (value) => value.toFixed(2) },
    { ...latency("late", "p99 of the generator's own lateness"), better: undefined },
  ],
  idle: [bytes, {
    figure: "seconds",
    label: "s to accept",
    better: "less",
    format: (value) => value.toPrecision(3),
  }],
  start: [
    latency("start", "to listening"),
    { ...latency("empty", "an empty Deno program"), better: undefined },
  ],
  history: [bytes],
};

const TITLES: Record<Row["kind"], string> = {
  echo: "Echo, messages a second",
  chat: "Chat, messages delivered a second",
  unix: "Plain chat over TCP and over a Unix socket, messages delivered a second",
  latency: "Latency at half of bare Deno's rate, from when a message was due",
  idle: "Idle connections",
  start: "Start",
  history: "Memory of a message in history",
};

const NOTES = {
  " †": "the load generator's core was full and the server's was not: at least as much.",
  " ‡": "other processes took more than a tenth of a core meanwhile: not to be relied on.",
};

/** What is to be said of a cell. */
function marks(result: RowResult, server: string): string {
  const busy = (who: string) => figureOf(result, server, `${who}Busy`) ?? NaN;
  return (busy("client") > 0.95 && busy("server") < 0.9 ? " †" : "") +
    (busy("others") > DISTURBED ? " ‡" : "");
}

function best(
  result: RowResult,
  servers: Server[],
  { figure, better }: Metric,
): number | undefined {
  const values = servers.filter(({ role }) => role === "peer")
    .map(({ name }) => figureOf(result, name, figure))
    .filter((value) => value !== undefined);
  if (values.length === 0) return undefined;
  return better === "more" ? Math.max(...values) : Math.min(...values);
}

function ratio(value: number | undefined, to: number | undefined): string {
  return value === undefined || to === undefined ? "–" : `${(value / to).toFixed(2)} ×`;
}

/** One table for the rows of one kind. */
function tableOf(results: RowResult[], all: Server[]): string[] {
  const { kind } = results[0].row;
  const servers = all.filter(({ name }) => results.some(({ runs }) => runs[name]));
  const parleys = servers.filter(({ role }) => role === "parley");
  const rivals = [["control", "bare Deno"], ["peer", "best peer"]]
    .filter(([role]) => servers.some((server) => server.role === role));
  const lines: string[][] = [[
    TITLES[kind],
    ...servers.map(({ label }) => label),
    ...rivals.flatMap(([, rival]) => parleys.map(({ label }) => `${label} ÷ ${rival}`)),
  ]];
  lines.push(lines[0].map((_, i) => i === 0 ? "---" : "--:"));
  for (const result of results) {
    for (const metric of METRICS[kind]) {
      const value = (name: string) => figureOf(result, name, metric.figure);
      lines.push([
        `${result.row.name} ${metric.label}`.trim(),
        ...servers.map(({ name }) => {
          const cell = value(name);
          if (cell === undefined) return "–";
          return metric.format(cell) + marks(result, name);
        }),
        ...rivals.flatMap(([role]) => {
          const by = role === "peer" ? best(result, servers, metric) : value("control");
          return parleys.map(({ name }) => metric.better ? ratio(value(name), by) : "–");
        }),
      ]);
    }
  }
  return lines.map((cells) => `| ${cells.join(" | ")} |`);
}

/** All tables, and each failure in place of its row. */
export function report(results: RowResult[], servers: Server[]): string {
  const parts: string[] = [];
  for (const kind of Object.keys(METRICS)) {
    const rows = results.filter(({ row }) => row.kind === kind);
    const good = rows.filter(({ failures, runs }) =>
      failures.length === 0 && Object.keys(runs).length > 0
    );
    if (good.length > 0) parts.push(tableOf(good, servers).join("\n"));
    for (const { row, failures } of rows) {
      for (const failure of failures) {
        parts.push(`FAILED, so not shown: ${row.name}: ${failure}`);
      }
    }
  }
  const text = parts.join("\n\n");
  const notes = Object.entries(NOTES).filter(([mark]) => text.includes(mark));
  return text + notes.map(([mark, note]) => `\n\n${mark.trim()} ${note}`).join("");
}
