// @ts-check
/// <reference lib="dom" />
/**
 * The dashboard: the room `_stats` as figures and charts.
 *
 * @module
 */
// @ts-types="../client/client.js"
import { connect } from "./client.js";
// @ts-types="npm:uplot@1.6.32"
import uPlot from "./uplot.js";

/** @typedef {import("../http/stats.ts").Stats} Stats */

const KEPT_SECONDS = 300;
const MIN_SPAN_SECONDS = 60;
const SILENCE_MS = 5_000;
const STANDSTILL_MS = 3_000;
/** A warning stays for so long: one of a second would be missed. */
const WARNING_MS = 10_000;
const MINUTE = 60;
const count = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const bytes = new Intl.NumberFormat("en", {
  notation: "compact",
  style: "unit",
  unit: "byte",
  unitDisplay: "narrow",
  maximumFractionDigits: 1,
});
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const health = /** @type {HTMLElement} */ (document.getElementById("health"));
const figures = /** @type {HTMLElement} */ (document.getElementById("figures"));
const charts = /** @type {HTMLElement} */ (document.getElementById("charts"));

/** Evictions in each second of the last minute. @type {number[]} */
const evictions = [];
const evictedLately = () => evictions.reduce((sum, each) => sum + each, 0);

/** @type {[label: string, read: (stats: Stats) => [value: string, more: string]][]} */
const FIGURES = [
  ["Clients", ({ connections: { plain, v1, echo, events } }) => [
    count.format(plain + v1 + echo + events),
    `${v1} v1, ${plain} plain, ${events} SSE, ${echo} echo`,
  ]],
  ["Rooms", ({ rooms, members }) => [count.format(rooms), `members: ${members}`]],
  ["Messages in", ({ messagesIn }) => [`${count.format(messagesIn)}/s`, "from clients"]],
  ["Delivered", ({ deliveries, bytesOut }) => [
    `${count.format(deliveries)}/s`,
    `${bytes.format(bytesOut)}/s`,
  ]],
  [
    "Fan-out p99",
    ({ fanOutMs }) =>
      fanOutMs ? [`≤ ${fanOutMs.p99} ms`, `p50 ≤ ${fanOutMs.p50} ms`] : ["–", "too few messages"],
  ],
  ["Queued", ({ queueBytes }) => [bytes.format(queueBytes), "not yet taken"]],
  ["Evicted", () => [count.format(evictedLately()), "in a minute"]],
  ["Refused", ({ refusals }) => [`${count.format(refusals)}/s`, "errors sent"]],
  ["Memory", ({ rssMb }) => [bytes.format(rssMb * 1e6), "of the process"]],
  ["Engine", ({ engine }) => [
    engine.name,
    `rooms: ${count.format(engine.rooms)}, ${bytes.format(engine.historyBytes)} kept`,
  ]],
];

/** @type {[label: string, lines: [label: string, read: (stats: Stats) => number | undefined][]][]} */
const CHARTS = [
  ["Messages a second", [
    ["delivered", (stats) => stats.deliveries],
    ["in", (stats) => stats.messagesIn],
  ]],
  ["Clients", [
    ["sockets", ({ connections: { plain, v1, echo } }) => plain + v1 + echo],
    ["event streams", (stats) => stats.connections.events],
  ]],
  ["Fan-out, ms at most", [
    ["p99", (stats) => stats.fanOutMs?.p99],
    ["p50", (stats) => stats.fanOutMs?.p50],
  ]],
  ["Memory and queues, MB", [
    ["memory", (stats) => stats.rssMb],
    ["queued", (stats) => stats.queueBytes / 1e6],
  ]],
];

const values = FIGURES.map(([label]) => {
  const item = document.createElement("div");
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = label;
  item.append(term, value);
  figures.append(item);
  return value;
});

/** @type {number[]} */
const times = [];
const plots = CHARTS.map(([label, lines]) => {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = label;
  figure.append(caption);
  charts.append(figure);
  const series = lines.map(() => /** @type {(number | null | undefined)[]} */ ([]));
  return { figure, lines, series, plot: draw(figure, lines.map(([name]) => name)) };
});

/**
 * @param {HTMLElement} figure
 * @param {string[]} names
 */
function draw(figure, names) {
  const color = (/** @type {string} */ name) => () =>
    getComputedStyle(document.documentElement).getPropertyValue(name);
  const axis = { stroke: color("--faint"), grid: { stroke: color("--line"), width: 1 } };
  return new uPlot(
    {
      width: figure.clientWidth - 32,
      height: 180,
      padding: [8, 40, 0, 0],
      series: [
        {},
        ...names.map((name, i) => ({
          label: name,
          stroke: color(i === 0 ? "--first" : "--second"),
          width: 2,
          points: { show: false },
        })),
      ],
      axes: [{
        ...axis,
        size: 30,
        space: 80,
        values: (/** @type {unknown} */ _, /** @type {number[]} */ ticks) =>
          ticks.map((tick) => clock.format(tick * 1000)),
      }, {
        ...axis,
        size: 56,
        values: (/** @type {unknown} */ _, /** @type {number[]} */ ticks) =>
          ticks.map((tick) => count.format(tick)),
      }],
      legend: { live: false },
      cursor: { show: false },
      scales: {
        x: { range: (_, low, high) => [Math.min(low, high - MIN_SPAN_SECONDS), high] },
        y: { range: (_, low, high) => [Math.min(0, low), Math.max(1, high * 1.1)] },
      },
    },
    [[], ...names.map(() => [])],
    figure,
  );
}

/**
 * @param {Stats} stats
 * @param {number} stoodMs since the stats before
 * @returns {[state: string, text: string, label?: string]} with the label of the figure that tells
 */
function judge({ shut, engine, queueBytes, connections, fanOutMs }, stoodMs) {
  const clients = connections.plain + connections.v1 + connections.echo;
  if (shut) return ["bad", `Nobody is let in: the server is ${shut}`];
  if (!engine.isReady) return ["bad", `The ${engine.name} engine cannot be reached`, "Engine"];
  if (stoodMs > STANDSTILL_MS) {
    return ["warn", `The server stood still for ${Math.round(stoodMs / 1000)} s`];
  }
  if (evictedLately() > 0) return ["warn", "Slow clients were sent away", "Evicted"];
  if (queueBytes > 65_536 * Math.max(1, clients)) return ["warn", "Clients fell behind", "Queued"];
  if (fanOutMs && fanOutMs.p99 > 250) return ["warn", "Fan-out was slow", "Fan-out p99"];
  return ["well", "All is well"];
}

/** @param {string} state @param {string} text @param {string} [label] of the figure that tells */
function showHealth(state, text, label) {
  if (health.textContent === text) return;
  health.dataset.state = state;
  health.textContent = text;
  document.title = `${state === "well" ? "" : "⚠ "}Parley dashboard`;
  FIGURES.forEach(([each], i) => {
    /** @type {HTMLElement} */ (values[i].parentElement).dataset.state = each === label
      ? state
      : "";
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

/** @param {{ time: number, message: unknown }} message */
function show({ time, message }) {
  const stats = /** @type {Stats} */ (message);
  awaitStats();
  const stoodMs = time - 1000 * (times.at(-1) ?? time / 1000);
  times.push(time / 1000);
  if (times.length > KEPT_SECONDS) times.shift();
  evictions.push(stats.evictions);
  if (evictions.length > MINUTE) evictions.shift();
  FIGURES.forEach(([, read], i) => {
    const [value, more] = read(stats);
    const small = document.createElement("small");
    small.textContent = more;
    values[i].replaceChildren(value, small);
  });
  for (const { lines, series } of plots) {
    lines.forEach(([, read], i) => {
      series[i].push(read(stats));
      if (series[i].length > KEPT_SECONDS) series[i].shift();
    });
  }
  const [state, text, label] = judge(stats, stoodMs);
  if (state === "warn") warnedAt = time;
  if (state !== "well" || time - warnedAt >= WARNING_MS) showHealth(state, text, label);
  scheduleDraw();
}

let isDue = false;
// A replay brings many seconds at once: they are drawn once.
function scheduleDraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const { plot, series } of plots) plot.setData([times, ...series]);
  });
}

new ResizeObserver(() => {
  for (const { figure, plot } of plots) {
    plot.setSize({ width: figure.clientWidth - 32, height: 180 });
  }
}).observe(charts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", scheduleDraw);

addEventListener("hashchange", () => location.reload());

awaitStats();
connect(new URL(".", location.href), {
  room: "_stats",
  history: KEPT_SECONDS,
  token: new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined,
  onMessage: show,
  onState: (state) => {
    if (state === "reconnecting") showHealth("bad", "No connection to the server");
  },
  onError: ({ code, message }) => {
    clearTimeout(silence);
    const advice = code.includes("token") ? " Put one behind this page's address: #token=…" : "";
    showHealth("bad", message + advice);
  },
});
