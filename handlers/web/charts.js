// @ts-check
/** A chart on the dashboard: lines over time, with gaps where nothing was measured. @module */
import { element } from "./page.js";
// @ts-types="npm:uplot@1.6.32"
import uPlot from "./uplot.js";

/** @typedef {import("../http/stats.ts").Stats} Stats */
/** @typedef {[name: string, read: (stats: Stats) => number | undefined]} Line */

const HEIGHT = 180;
const MIN_SPAN_SECONDS = 60;
const MIN_TOP = 4;
const COLORS = ["--accent", "--second", "--third"];
const number = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en", { hourCycle: "h23", timeStyle: "medium" });
/** @param {number} at in Unix seconds */
const timeText = (at) => clock.format(at * 1_000);

/** The values between two gaps, which no line shows. @type {uPlot.Series.Points.Filter} */
const isolated = ({ data }, series) => {
  const values = data[series];
  return [...values.keys()].filter((i) =>
    values[i] != null && values[i - 1] == null && values[i + 1] == null
  );
};

/** The lines of one figure. */
export class Chart {
  #top = 1;
  #range = [0, 1];

  /** @param {HTMLElement} parent @param {string} label @param {Line[]} lines */
  constructor(parent, label, lines) {
    this.lines = lines;
    this.peak = element("small");
    this.figure = element(
      "figure",
      { className: "empty" },
      element("figcaption", {}, label, this.peak),
    );
    parent.append(this.figure);
    const color = (/** @type {string} */ name) => () => {
      // A custom property becomes a colour only on an element; the head is never seen.
      document.head.style.color = `var(${name})`;
      return getComputedStyle(document.head).color;
    };
    const axis = { stroke: color("--faint"), grid: { stroke: color("--line"), width: 1 } };
    this.plot = new uPlot(
      {
        width: this.#width,
        height: HEIGHT,
        padding: [8, 24, 0, 0],
        series: [
          { value: (_, at) => at === null ? "" : timeText(at) },
          ...lines.map(([name], i) => ({
            label: name,
            stroke: color(COLORS[i]),
            width: 2,
            points: { show: true, size: 4, filter: isolated },
            value: (/** @type {uPlot} */ _, /** @type {number | null} */ value) =>
              value === null ? "" : number.format(value),
          })),
        ],
        axes: [
          { ...axis, size: 30, space: 72, values: (_, ticks) => ticks.map(timeText) },
          { ...axis, size: 48, values: (_, ticks) => ticks.map((value) => number.format(value)) },
        ],
        cursor: { drag: { x: false, y: false } },
        scales: {
          x: { range: () => /** @type {uPlot.Range.MinMax} */ (this.#range) },
          y: { range: () => [0, this.#top] },
        },
      },
      [[], ...lines.map(() => [])],
      this.figure,
    );
  }

  /**
   * @param {{ at: number, stats?: Stats }[]} seconds in Unix seconds; without stats it is a gap
   * @param {number} range how many are shown
   */
  draw(seconds, range) {
    const times = seconds.map(({ at }) => at);
    const series = this.lines.map(([, read]) =>
      seconds.map(({ stats }) => stats ? read(stats) ?? null : null)
    );
    const end = times.at(-1) ?? 0;
    const start = Math.max(end - range, Math.min(times[0] ?? 0, end - MIN_SPAN_SECONDS));
    this.#range = [start, end];
    const first = times.findIndex((at) => at >= start);
    const seen = series.flatMap((values) => values.slice(first))
      .filter((value) => value !== null).sort((a, b) => a - b);
    const peak = seen.at(-1) ?? 0;
    // One spike must not flatten the rest: it is cut off, and its height told.
    const usual = seen[Math.ceil(seen.length * 0.98) - 1] ?? 0;
    const isCut = usual > 0 && peak > 3 * usual;
    this.#top = Math.max(MIN_TOP, (isCut ? 2 * usual : peak) * 1.1);
    this.peak.textContent = isCut ? ` · peak ${number.format(peak)}` : "";
    this.figure.classList.toggle("empty", seen.length === 0);
    this.plot.setData([times, ...series]);
  }

  resize() {
    this.plot.setSize({ width: this.#width, height: HEIGHT });
  }

  get #width() {
    return this.figure.clientWidth - 32;
  }
}
