// @ts-check
/** The dashboard: the state of the room `_stats` as figures and charts, that of `_nodes` as a table, and the rooms. @module */
import { Chart } from "./charts.js";
// @ts-types="../client/client.d.ts"
import { connect } from "./client.js";
import { byId, element, linkTo, listRooms, token } from "./page.js";

/** @typedef {import("../http/stats.ts").Stats} Stats */
/** @typedef {import("../http/stats.ts").NodeRow} NodeRow */

const KEPT_SECONDS = 3_600;
const SILENCE_MS = 5_000;
const STANDSTILL_MS = 3_000;
/** A warning stays for so long: one of a second would be missed. */
const WARNING_MS = 10_000;
const ROOMS_MS = 5_000;
const TOP_ROOMS = 10;
const NODE_HEADS = [
  ...["Node · worker", "Clients", "Delivered", "Processor", "Late"],
  ...["In", "Memory", "Redis", "Up", "Version"],
];
const MINUTE = 60;
const SLOW_MS = 250;
/** Fewer in a minute are slips, not an incident. */
const MANY_REFUSALS = 10;
const format = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
/** @param {number} figure */
const count = (figure) => format.format(figure);
const collator = new Intl.Collator("en", { numeric: true });
const range = byId("range");

/** What is known of the last hour, in Unix seconds. @type {{ at: number, stats?: Stats }[]} */
const seconds = [];
/** @param {"evictions" | "refusals"} kind */
const inAMinute = (kind) =>
  seconds.slice(-MINUTE).reduce((sum, { stats }) => sum + (stats?.[kind] ?? 0), 0);

/** @param {number} size in bytes */
function bytes(size) {
  const units = ["B", "kB", "MB", "GB"];
  const unit = size < 1 ? 0 : Math.min(3, Math.floor(Math.log10(size) / 3));
  return `${(size / 1_000 ** unit).toFixed(unit && 1)} ${units[unit]}`;
}

/** @param {number} seconds */
function duration(seconds) {
  const units = /** @type {const} */ ([[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]]);
  const [size, unit] = units.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** @param {Stats} stats */
const clientsOf = ({ connections: { plain, v1, echo, events } }) => plain + v1 + echo + events;

/** @type {[label: string, read: (stats: Stats) => [value: string, more: string]][]} */
const FIGURES = [
  ["Clients", (all) => {
    const { v1, plain, events } = all.connections;
    const kinds = `${v1} v1, ${plain} plain, ${events} SSE`;
    return [count(clientsOf(all)), `of ${count(all.maxConnections)}; ${kinds}`];
  }],
  ["Rooms", ({ rooms, members, workers }) => {
    return [count(rooms), `${count(members)} joined${workers > 1 ? "; a room once a worker" : ""}`];
  }],
  ["Messages in", ({ messagesIn }) => [`${count(messagesIn)}/s`, "from clients"]],
  ["Delivered", (all) => [`${count(all.deliveries)}/s`, `${bytes(all.bytesOut)}/s`]],
  [
    "Fan-out p99",
    ({ fanOutMs: ms }) => ms ? [`≤ ${ms.p99} ms`, `p50 ≤ ${ms.p50} ms`] : ["–", "too few messages"],
  ],
  ["Refused", () => [count(inAMinute("refusals")), "errors sent in a minute"]],
  ["Evicted", () => [count(inAMinute("evictions")), "too slow, in a minute"]],
  ["Queued", ({ queueBytes }) => [bytes(queueBytes), "not yet taken"]],
  ["Processor", ({ cpu, lagMs }) => [`${Math.round(cpu * 100)} %`, `of a core; ${lagMs} ms late`]],
  ["Memory", ({ rssMb, workers }) => {
    return [bytes(rssMb * 1e6), workers > 1 ? `of ${workers} workers` : "of the process"];
  }],
  ["Engine", ({ engine: { name, roundTripMs, historyBytes } }) => {
    const distance = roundTripMs === undefined ? "" : `${roundTripMs} ms away, `;
    return [name, `${distance}${bytes(historyBytes)} kept`];
  }],
  ["Up", ({ upSeconds, version, host }) => {
    return [duration(upSeconds), `Parley ${version}${host ? ` on ${host}` : ""}`];
  }],
];

const CHARTS = /** @type {[string, import("./charts.js").Line[]][]} */ ([
  ["Messages a second", [
    ["delivered", (stats) => stats.deliveries],
    ["in", (stats) => stats.messagesIn],
  ]],
  ["Clients", [
    ["sockets", ({ connections: { plain, v1, echo } }) => plain + v1 + echo],
    ["event streams", (stats) => stats.connections.events],
  ]],
  ["Incidents a second", [
    ["refused", (stats) => stats.refusals],
    ["evicted", (stats) => stats.evictions],
    ["came back", (stats) => stats.reconnects],
  ]],
  ["Fan-out, ms at most", [
    ["p99", (stats) => stats.fanOutMs?.p99],
    ["p50", (stats) => stats.fanOutMs?.p50],
  ]],
  ["Memory and queues, MB", [
    ["memory", (stats) => stats.rssMb],
    ["queued", (stats) => stats.queueBytes / 1e6],
  ]],
  ["Processor, % of a core, and lateness, ms", [
    ["processor", (stats) => stats.cpu * 100],
    ["late", (stats) => stats.lagMs],
    ["engine away", (stats) => stats.engine.roundTripMs],
  ]],
]);

const values = FIGURES.map(([label]) => {
  const value = element("dd", {}, "–", element("small"));
  byId("figures").append(element("div", { className: "box" }, element("dt", {}, label), value));
  return value;
});

const charts = CHARTS.map(([label, lines]) => new Chart(byId("charts"), label, lines));

/**
 * @param {Stats} stats
 * @param {number} stoodMs since the stats before
 * @returns {[state: string, text: string, label?: string]} with the label of the figure that tells
 */
function judge(stats, stoodMs) {
  const { shut, engine, queueBytes, fanOutMs } = stats;
  if (shut) return ["bad", `Nobody is let in: the server is ${shut}`];
  if (!engine.isReady) return ["bad", `The ${engine.name} engine cannot be reached`, "Engine"];
  if (stoodMs > STANDSTILL_MS) {
    return ["warn", `The server stood still for ${Math.round(stoodMs / 1000)} s`];
  }
  if (inAMinute("evictions") > 0) return ["warn", "Slow clients were sent away", "Evicted"];
  if (inAMinute("refusals") >= MANY_REFUSALS) return ["warn", "Errors were sent", "Refused"];
  if (queueBytes > 65_536 * Math.max(1, clientsOf(stats))) {
    return ["warn", "Clients fell behind", "Queued"];
  }
  if (fanOutMs && fanOutMs.p99 > SLOW_MS) return ["warn", "Fan-out was slow", "Fan-out p99"];
  if (stats.lagMs > SLOW_MS) return ["warn", "The event loop was late", "Processor"];
  return ["well", "All is well"];
}

/** @param {string} state @param {string} text @param {string} [label] of the figure that tells */
function showHealth(state, text, label) {
  const health = byId("health");
  if (health.textContent === text) return;
  health.dataset.state = state;
  health.textContent = text;
  document.title = `${state === "well" ? "" : "⚠ "}Parley dashboard`;
  FIGURES.forEach(([each], i) => {
    const card = /** @type {HTMLElement} */ (values[i].parentElement);
    card.dataset.state = each === label ? state : "";
  });
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let silence;
function awaitStats() {
  clearTimeout(silence);
  silence = setTimeout(async () => {
    const response = await fetch("readyz").catch(() => undefined);
    const reason = response?.status === 503 ? `: ${await response.text()}` : "";
    showHealth("bad", response ? `The server is silent${reason}` : "No connection to the server");
  }, SILENCE_MS);
}

let warnedAt = -Infinity;

/** @param {number} time @param {Stats} stats */
function add(time, stats) {
  const at = time / 1_000;
  // It is told again, or the server's clock was set back.
  while (Number(seconds.at(-1)?.at) >= at) seconds.pop();
  const stoodMs = 1_000 * (at - (seconds.at(-1)?.at ?? at));
  if (stoodMs > STANDSTILL_MS) seconds.push({ at: at - 1 });
  seconds.push({ at, stats });
  while (seconds.length > KEPT_SECONDS) seconds.shift();
  const [state, text, label] = judge(stats, stoodMs);
  if (state === "warn") warnedAt = time;
  if (state !== "well" || time - warnedAt >= WARNING_MS) showHealth(state, text, label);
}

/** @param {import("../client/client.js").StateChange<any>} change */
function show({ room, entries }) {
  if (room === "_nodes") return showNodes();
  awaitStats();
  for (const { time, value } of entries.toSorted((a, b) => a.rev - b.rev)) {
    value && add(time, value);
  }
  const stats = seconds.at(-1)?.stats;
  if (!stats) return;
  FIGURES.forEach(([, read], i) => {
    const [value, more] = read(stats);
    values[i].replaceChildren(value, element("small", {}, more));
  });
  scheduleDraw();
}

let isScheduled = false;
function scheduleDraw() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    for (const chart of charts) chart.draw(seconds, Number(range.value));
  });
}

/** @param {string} id @param {string[]} heads @param {(Node | string)[][]} rows */
function showTable(id, heads, rows) {
  byId(id).hidden = rows.length === 0;
  byId(id).replaceChildren(
    ...[heads, ...rows].map((cells, i) =>
      element("tr", {}, ...cells.map((cell) => element(i === 0 ? "th" : "td", {}, cell)))
    ),
  );
}

/** Shows the threads of all nodes. */
function showNodes() {
  const nodes = /** @type {[string, NodeRow][]} */ ([...client.state("_nodes")]);
  const rows = nodes.sort(([a], [b]) => collator.compare(a, b)).map(([key, node]) => [
    `${node.host ?? key.split("/")[0]} · ${node.worker}`,
    `${count(node.clients)} of ${count(node.maxConnections)}`,
    `${count(node.deliveries)}/s`,
    `${Math.round(node.cpu * 100)} %`,
    `${node.lagMs} ms`,
    `${count(node.messagesIn)}/s`,
    bytes(node.rssMb * 1e6),
    node.roundTripMs === undefined ? "–" : `${node.roundTripMs} ms`,
    duration(node.upSeconds),
    node.version,
  ]);
  showTable("nodes", NODE_HEADS, rows);
}

/** Shows the rooms with most listeners, as links into the chat. */
async function showRooms() {
  const rooms = await listRooms();
  if (!rooms) return;
  const shown = rooms.sort((a, b) => b.listeners - a.listeners).slice(0, TOP_ROOMS);
  const rows = shown.map(({ room, listeners, members, seq }) => {
    return [linkTo(room), ...[listeners, members, seq].map(count)];
  });
  showTable("rooms", ["Room", "Listeners", "Members", "Messages"], rows);
}

new ResizeObserver(() => {
  for (const chart of charts) chart.resize();
}).observe(byId("charts"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", scheduleDraw);
range.onchange = scheduleDraw;
if (token) {
  Object.assign(byId("chat"), { hash: location.hash });
  Object.assign(byId("metrics"), { search: new URLSearchParams({ token }) });
}

awaitStats();
showRooms();
setInterval(showRooms, ROOMS_MS);
const client = connect(".", {
  room: "_stats",
  state: true,
  token,
  onState: show,
  onConnection: (state) => {
    if (state === "reconnecting") showHealth("bad", "No connection to the server");
  },
  onError: ({ code, message }) => {
    clearTimeout(silence);
    const advice = code.includes("token") ? " Put one behind this page's address: #token=…" : "";
    showHealth("bad", message + advice);
  },
});
client.listen("_nodes");
