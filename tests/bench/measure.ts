/** Measures one row: every server in turn, then again, so that what disturbs the machine disturbs all alike. */

import { machineCpuSeconds } from "./proc.ts";
import { DISTURBED, type Figures, type RowResult } from "./results.ts";
import type { Row } from "./rows.ts";
import { type Effort, measureLoad, measureStart, Stage } from "./sample.ts";
import type { Server } from "./servers.ts";

const QUIET_SECONDS = 5;

/** The servers that take part in `row`. */
export function partakers(row: Row, servers: Server[]): Server[] {
  return servers.filter((server) => {
    switch (row.kind) {
      case "echo":
        return !server.chatOnly && !server.unix;
      case "unix":
        return server.dialect === "plain" && server.role !== "peer";
      case "history":
        return server.name === "parley-v1";
      case "start":
        return !server.chatOnly && !server.unix;
      default:
        // Ten thousand take a slow peer too long.
        return !server.unix && !(server.slow && row.rooms);
    }
  });
}

/** When a row has to be done, and how fast it goes. */
export interface Pace {
  /** No further turn begins that would end later, by `performance.now()`. @default never */
  until?: number;
  /** The rate of a latency row. */
  perSecond?: number;
}

/** Measures `row`; `log` hears of every measurement. */
export async function measureRow(
  row: Row,
  servers: Server[],
  effort: Effort,
  log: (line: string) => void,
  { until = Infinity, perSecond }: Pace = {},
): Promise<RowResult> {
  const result: RowResult = { row, runs: {}, failures: [] };
  const stage = new Stage(row);
  try {
    let lasted = 0;
    for (let turn = 0; turn < effort.turns; turn++) {
      const start = performance.now();
      if (turn > 0 && start + lasted > until) break;
      for (const server of partakers(row, servers)) {
        const hasFailed = result.failures.some((text) => text.startsWith(server.label));
        if (hasFailed || (server.slow && turn > 0)) continue;
        try {
          const figures = row.kind === "start" ? await measureStart(server) : await undisturbed(
            effort.retries,
            until,
            () => measureLoad(row, server, effort, stage, perSecond),
          );
          (result.runs[server.name] ??= []).push(figures);
          log(`${row.name} · ${server.name} · ${describe(figures)}`);
        } catch (error) {
          result.failures.push(`${server.label}: ${(error as Error).message}`);
        }
      }
      lasted = performance.now() - start;
    }
  } finally {
    await stage.stop();
  }
  return result;
}

/** Measures in a quiet moment, and again if that was none; the least disturbed counts. */
async function undisturbed(
  retries: number,
  until: number,
  measure: () => Promise<Figures>,
): Promise<Figures> {
  let best: Figures | undefined;
  for (let i = 0; i <= retries; i++) {
    if (best && performance.now() > until) break;
    await quiet(Math.min(performance.now() + i * QUIET_SECONDS * 1_000, until));
    const figures = await measure();
    if (!best || figures.othersBusy < best.othersBusy) best = figures;
    if (!(best.othersBusy > DISTURBED)) break;
  }
  return best!;
}

/** Waits until the machine does next to nothing, to `end` at most. */
async function quiet(end: number): Promise<void> {
  while (performance.now() < end) {
    const before = machineCpuSeconds();
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (machineCpuSeconds() - before <= 0.2 * DISTURBED) return;
  }
}

function describe(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) =>
      `${name} ${value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(3)}`
    ).join(" · ");
}
