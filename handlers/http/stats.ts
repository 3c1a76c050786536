/**
 * What the dashboard shows, once a second, as state: in the room `_stats` the last five minutes of this process, all
 * threads together; in the room `_nodes` each thread of each node as it is now.
 */
import config from "../../deno.json" with { type: "json" };
import { unavailableReason } from "../access/access.ts";
import type { App } from "../app.ts";
import { NODES_ROOM, STATS_ROOM } from "../protocol/parse.ts";
import { addUp } from "../registry/counters.ts";
import { eachFigures, readFigures, type ServerFigures, thisMachine, total } from "./metrics.ts";
import { findRoom } from "./rooms.ts";

/** Keeps rates sane where one look comes right behind a late one. */
const MIN_SECONDS = 0.1;
const INTERVAL_MS = 1_000;
const KEPT_SECONDS = 300;
/** What a second takes of MAX_STATE_BYTES at most. */
const SECOND_BYTES = 850;
/** About the size of a `parley.v1` object around a second, and of one with a thread's row. */
const OBJECT_BYTES = 120;
const ROW_BYTES = 330;
/** A node that says nothing for so long is gone. */
const NODE_TTL_SECONDS = 5;

/** A second of this process. Who only watches these figures is not in them, but as `watchers`. */
export type Stats = ReturnType<typeof compare> & { host?: string; rssMb: number };

/** A thread of a node, and what is the same for all threads of the node. */
export type NodeRow =
  & Pick<Stats, "host" | "version" | "upSeconds" | "maxConnections" | "rssMb">
  & ReturnType<typeof compareThread>
  & { worker: number; roundTripMs?: number };

/** One look at the process: when, by a clock that nobody can set, in ms; `ownBytes` is what its second took for each watcher. */
type Look = { threads: ServerFigures[]; at: number; cpuSeconds: number; ownBytes: number };

/** Sets {@link Stats} and, while somebody listens, {@link NodeRow}s each second, until the returned function is called. */
export function publishStats(app: App, machine = thisMachine): () => void {
  const { registry, clock, limits } = app;
  const { host } = machine;
  const node = crypto.randomUUID().slice(0, 8);
  const kept = Math.min(KEPT_SECONDS, Math.floor(limits.maxStateBytes / SECOND_BYTES));
  const look = (threads: ServerFigures[]): Look => {
    return { threads, at: clock.elapsedMs(), cpuSeconds: machine.cpuSeconds(), ownBytes: 0 };
  };
  const set = (room: string, key: string, object: unknown, ttlSeconds?: number): number => {
    const value = JSON.stringify(object);
    registry.engineOf(room).set(room, { key, value, sender: "parley", ttlSeconds });
    return value.length + OBJECT_BYTES;
  };
  let last = look([readFigures(app)]);
  let second = 0;
  const publish = (threads: ServerFigures[]) => {
    const [before, now] = [last, look(threads)];
    const rssMb = Math.round(machine.rssBytes() / 100_000) / 10;
    const stats = { host, rssMb, ...compare(app, before, now) };
    if (kept > 0) now.ownBytes = set(STATS_ROOM, `seconds/${second++ % kept}`, stats);
    last = now;
    if (app.threads?.index) return;
    const { version, upSeconds, maxConnections, engine: { roundTripMs } } = stats;
    const common = { host, version, upSeconds, maxConnections, rssMb, roundTripMs };
    const setRows = () =>
      threads.forEach((figures, worker) => {
        if (!figures.workers) return;
        const row = compareThread(before.threads[worker], figures, secondsBetween(before, now));
        set(NODES_ROOM, `${node}/${worker}`, { worker, ...common, ...row }, NODE_TTL_SECONDS);
      });
    if (threads.some(({ watchedNodes }) => watchedNodes > 0)) setRows();
    else if (registry.engineOf(NODES_ROOM).stats().remote) {
      // Somebody may listen at another node; where Redis is away nobody could hear it.
      findRoom(registry, NODES_ROOM).then((room) => room && setRows(), () => {});
    }
  };
  return clock.every(INTERVAL_MS, () => {
    registry.counters.lagMs = Math.max(0, Math.round(clock.elapsedMs() - last.at - INTERVAL_MS));
    if (app.threads) eachFigures(app).then(publish);
    else publish([readFigures(app)]);
  });
}

function secondsBetween(before: Look, now: Look): number {
  // A busy process may be late.
  return Math.max(MIN_SECONDS, (now.at - before.at) / 1_000);
}

function compareThread(before: ServerFigures | undefined, now: ServerFigures, seconds: number) {
  const rate = (kind: "messagesIn" | "deliveries" | "threadCpuSeconds", own = 0) =>
    Math.max(0, now[kind] - own - (before?.[kind] ?? now[kind])) / seconds;
  const watchers = total(now.watchers);
  return {
    clients: total(now.connections) - watchers,
    messagesIn: Math.round(rate("messagesIn")),
    deliveries: Math.round(rate("deliveries", watchers + now.watchedRows)),
    queueBytes: now.queueBytes,
    cpu: Math.round(rate("threadCpuSeconds") * 100) / 100,
    lagMs: now.lagMs,
  };
}

function compare({ registry, limits }: App, before: Look, look: Look) {
  const [last, now] = [before, look].map(({ threads }) => addUp(threads) as ServerFigures);
  const seconds = secondsBetween(before, look);
  // A worker that restarts is not counted meanwhile, and then starts from 0.
  const since = (before: number, after: number) =>
    last.workers === now.workers ? Math.max(0, after - before) : 0;
  const rate = (before: number, after: number, own = 0) =>
    Math.round(Math.max(0, since(before, after) - own) / seconds);
  const { bounds } = registry.counters.fanOutSeconds;
  const counts = [...bounds, "more"].map((_, i) =>
    since(last.fanOutSeconds.counts[i], now.fanOutSeconds.counts[i])
  );
  const watching: Record<string, number> = now.watchers;
  const watchers = total(watching);
  const ownBytes = watchers * before.ownBytes + now.watchedRows * ROW_BYTES;
  const trips = since(last.roundTrips ?? 0, now.roundTrips ?? 0);
  const tripSeconds = since(last.roundTripSeconds ?? 0, now.roundTripSeconds ?? 0);
  const clients = Object.entries(now.connections)
    .map(([kind, count]) => [kind, count - (watching[kind] ?? 0)] as const);
  return {
    version: config.version,
    upSeconds: Math.max(0, Math.round(registry.clock.now() / 1_000 - now.startSeconds)),
    workers: now.workers,
    /** Clients now, by dialect. */
    connections: Object.fromEntries(clients),
    maxConnections: limits.maxConnections,
    watchers,
    rooms: now.rooms - now.watchedStats - now.watchedNodes,
    members: now.members,
    /** A second, like the next two. */
    messagesIn: rate(last.messagesIn, now.messagesIn),
    deliveries: rate(last.deliveries, now.deliveries, watchers + now.watchedRows),
    bytesOut: rate(last.bytesOut, now.bytesOut, ownBytes),
    /** Since the stats before, like the next two. */
    refusals: since(total(last.refusals), total(now.refusals)),
    evictions: since(last.closes.tooSlow, now.closes.tooSlow),
    reconnects: since(total(last.recoveries), total(now.recoveries)),
    queueBytes: now.queueBytes,
    /** The median and the 99th percentile, as bounds of the histogram. */
    fanOutMs: counts.some((count) => count > 0)
      ? { p50: percentile(counts, bounds, 0.5), p99: percentile(counts, bounds, 0.99) }
      : undefined,
    /** How late the latest thread's event loop was. */
    lagMs: Math.max(...look.threads.map(({ lagMs = 0 }) => lagMs)),
    /** Cores in use: 1 is one core's whole second. */
    cpu: Math.round((look.cpuSeconds - before.cpuSeconds) / seconds * 100) / 100,
    engine: {
      name: registry.engineOf("").name,
      isReady: now.engineReady === now.workers,
      rooms: now.engineRooms,
      historyBytes: now.historyBytes,
      /** To a remote engine and back, on average over the samples. */
      roundTripMs: trips > 0 ? Math.round(tripSeconds / trips * 100_000) / 100 : undefined,
    },
    /** Why no new client is accepted, as `/readyz` says it. */
    shut: unavailableReason(registry),
  };
}

/** The bound, in ms, that a share of the samples is within; the highest one if they exceed all. */
function percentile(samples: number[], bounds: number[], share: number): number {
  let seen = 0;
  const i = samples.findIndex((count) => (seen += count) >= total(samples) * share);
  return Math.round((bounds[i] ?? bounds[bounds.length - 1]) * 1_000_000) / 1_000;
}
