/**
 * `/metrics` for Prometheus: the counters, read when somebody asks.
 *
 * @module
 */
import type { Counter, Gauge } from "prom-client";
import type { App, Handler } from "./app.ts";
import type { Histogram } from "./registry/counters.ts";

/** A metric's values: one number, or one for each value of its label. */
type Values = number | Record<string, number>;

/** Makes the handler of `/metrics`. prom-client is loaded at the first scrape. */
export function metrics(app: App): Handler {
  let scrape: Promise<() => Promise<Response>> | undefined;
  return async () => await (await (scrape ??= createScrape(app)))();
}

async function createScrape({ registry }: App): Promise<() => Promise<Response>> {
  const prom = await import("prom-client");
  const { counters } = registry;
  const register = new prom.Registry();
  prom.collectDefaultMetrics({ register });

  const define = (
    Kind: typeof Counter | typeof Gauge,
    name: string,
    help: string,
    read: () => Values,
    label?: string,
  ) => {
    new Kind({
      name: `parley_${name}`,
      help,
      labelNames: label ? [label] : [],
      registers: [register],
      collect() {
        this.reset();
        const values = read();
        if (typeof values === "number") this.inc(values);
        else for (const [key, value] of Object.entries(values)) this.inc({ [label!]: key }, value);
      },
    });
  };
  const { Counter, Gauge } = prom;
  define(Gauge, "connections", "Clients now.", () => counters.connections, "dialect");
  define(Gauge, "held_connections", "Clients that the runtime holds.", () => registry.heldCount);
  define(Gauge, "rooms", "Rooms with listeners.", () => registry.rooms.size);
  define(Gauge, "members", "Sockets that have joined.", () => registry.countMembers());
  define(Gauge, "queue_bytes", "Unsent bytes of all sockets.", () => registry.countQueueBytes());
  define(Counter, "received_messages_total", "Objects received.", () => counters.messagesIn);
  define(Counter, "received_bytes_total", "Bytes received.", () => counters.bytesIn);
  define(Counter, "sent_frames_total", "Frames sent.", () => counters.framesOut);
  define(Counter, "sent_bytes_total", "Bytes sent, text as UTF-16 units.", () => counters.bytesOut);
  define(Counter, "deliveries_total", "Messages times listeners.", () => counters.deliveries);
  define(Counter, "closes_total", "Closes by the server.", () => counters.closes, "reason");
  define(Counter, "refusals_total", "Errors sent.", () => counters.refusals, "code");
  define(Counter, "recoveries_total", "Resumed rooms.", () => counters.recoveries, "result");
  const engine = registry.engineOf("");
  define(Gauge, "engine_ready", "Whether the engine takes messages.", () => ({
    [engine.name]: Number(engine.isReady()),
  }), "engine");
  define(Gauge, "engine_rooms", "Rooms known, empty ones too.", () => engine.stats().rooms);
  define(Gauge, "history_bytes", "Bytes of history.", () => engine.stats().historyBytes);

  return async () => {
    const text = await register.metrics() +
      exposeHistogram("parley_batch_messages", "Objects a merged frame.", counters.batchSizes) +
      exposeHistogram(
        "parley_fan_out_seconds",
        "From a message's arrival until it was written, of one in 64.",
        counters.fanOutSeconds,
      );
    return new Response(text, {
      headers: { "content-type": register.contentType, "cache-control": "no-store" },
    });
  };
}

/** prom-client's histogram takes single figures only; these are counted already. */
function exposeHistogram(name: string, help: string, { bounds, counts, sum }: Histogram): string {
  let total = 0;
  const buckets = counts.map((count, i) => {
    total += count;
    return `${name}_bucket{le="${bounds[i] ?? "+Inf"}"} ${total}\n`;
  });
  return `\n# HELP ${name} ${help}\n# TYPE ${name} histogram\n${buckets.join("")}` +
    `${name}_sum ${sum}\n${name}_count ${total}\n`;
}
