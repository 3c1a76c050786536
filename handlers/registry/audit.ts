/** Compares what is counted in with what is there: a difference is a defect, and is said. */
import { keysOf } from "../access/shared_limits.ts";
import type { Registry } from "./registry.ts";

const AUDIT_MS = 60_000;
/** Differences in one line. */
const MAX_TOLD = 20;

/** Looks once a minute, and writes a line at `error` where the sums differ; the answer ends it. */
export function auditSlots(registry: Registry): () => void {
  return registry.clock.every(AUDIT_MS, () => {
    const problem = findDifference(registry);
    if (problem) registry.log.error(`Totals differ: ${problem}`, { event: "audit" });
  });
}

/** What does not add up, if anything. */
export function findDifference(registry: Registry): string | undefined {
  const { heldCount, holders, clients, counters } = registry;
  let members = 0;
  for (const { rooms } of clients) {
    for (const { name } of rooms.values()) if (name !== undefined) members++;
  }
  const open = Object.values(counters.connections).reduce((sum, count) => sum + count, 0);
  const totals: [what: string, counted: number, there: number][] = [
    ["slots", heldCount, holders.size],
    ["clients", open, clients.size],
    ["members", counters.members, members],
  ];
  const counts = registry.sharedLimits.countsHere?.();
  const keys = [...holders].flatMap(({ address, rights }) => keysOf(address, rights.user));
  const there = Map.groupBy(keys, (key) => key);
  for (const key of counts ? new Set([...counts.keys(), ...keys]) : []) {
    totals.push([`clients of ${key}`, counts!.get(key) ?? 0, there.get(key)?.length ?? 0]);
  }
  return totals.filter(([, counted, there]) => counted !== there).slice(0, MAX_TOLD)
    .map(([what, counted, there]) => `${counted} ${what} counted, ${there} there`)
    .join("; ") || undefined;
}
