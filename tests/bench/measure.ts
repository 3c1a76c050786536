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
        return !server.unix;
    }
  });
}

/** Measures `row`. `perSecond` is the rate of a latency row; `log` hears of every measurement. */
export async function measureRow(
  row: Row,
  servers: Server[],
  effort: Effort,
  log: (line: string) => void,
  perSecond?: number,
): Promise<RowResult> {
  const result: RowResult = { row, runs: {}, failures: [] };
  const stage = new Stage(row);
  try {
    for (let turn = 0; turn < effort.turns; turn++) {
      for (const server of partakers(row, servers)) {
        if (result.failures.some((text) => text.startsWith(server.label))) {
          continue;
        }
        try {
          const figures = row.kind === "start" ? await measureStart(server) : await undisturbed(
            effort.retries,
            () => measureLoad(row, server, effort, stage, perSecond),
          );
          (result.runs[server.name] ??= []).push(figures);
          log(`${row.name} · ${server.name} · ${describe(figures)}`);
        } catch (error) {
          result.failures.push(`${server.label}: ${(error as Error).message}`);
        }
      }
    }
  } finally {
    await stage.stop();
  }
  return result;
}

/** Measures in a quiet moment, and again if that was none; the least disturbed counts. */
async function undisturbed(retries: number, measure: () => Promise<Figures>) {
  let best: Figures | undefined;
  for (let i = 0; i <= retries; i++) {
    await quiet(i * QUIET_SECONDS);
    const figures = await measure();
    if (!best || figures.othersBusy < best.othersBusy) best = figures;
    if (!(best.othersBusy > DISTURBED)) break;
  }
  return best!;
}

/** Waits until the machine does next to nothing, `seconds` at most. */
async function quiet(seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000;
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
