/** Draws lines over sizes as SVG. */

/** Height of one panel with its title and its sizes. */
const PANEL_HEIGHT = 310;

/** One panel: its lines are microseconds at each size. */
export interface Panel {
  title: string;
  sizes: number[];
  lines: Map<string, number[]>;
}

/** Panels below each other, both axes by powers of ten. */
export function chart(panels: Panel[]): string {
  const size = `viewBox="0 0 760 ${panels.length * PANEL_HEIGHT + 10}"`;
  const style = "<style>text{font:12px sans-serif;fill:#777}</style>";
  const drawn = panels.map((panel, i) => draw(panel, 40 + i * PANEL_HEIGHT));
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${style}\n${drawn.join("\n")}\n</svg>\n`;
}

function draw({ title, sizes, lines }: Panel, top: number): string {
  const [width, height, left] = [420, 240, 60];
  const decades = Math.log10(sizes.at(-1)! / sizes[0]);
  const x = (size: number) => left + Math.log10(size / sizes[0]) / decades * width;
  const y = (us: number) => top + height - (Math.log10(Math.max(us, 0.01)) + 2) / 7 * height;
  const grid = [0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5].map((us) =>
    `<path d="M${left} ${y(us)}h${width}" stroke="#8884"/><text x="${left - 6}" y="${
      y(us) + 4
    }" text-anchor="end">` +
    `${us >= 1e3 ? `${us / 1e3} ms` : `${us} µs`}</text>`
  );
  const ticks = sizes.map((size) =>
    `<text x="${x(size)}" y="${top + height + 16}" text-anchor="middle">${
      size.toLocaleString("en")
    }</text>`
  );
  const colors = ["#4e79a7", "#e15759", "#59a14f", "#b07aa1", "#f28e2b"];
  const paths = [...lines].map(([name, values], i) => {
    const points = values.map((us, at) => `${x(sizes[at]).toFixed(1)},${y(us).toFixed(1)}`).join(
      " ",
    );
    const at = `x="${left + width + 16}" y="${top + 20 + i * 20}"`;
    return `<polyline points="${points}" fill="none" stroke="${colors[i]}" stroke-width="2"/>` +
      `<text ${at} style="fill:${colors[i]}">${name}</text>`;
  });
  const head = `<text x="${left}" y="${top - 10}" font-weight="bold">${title}</text>`;
  return [head, ...grid, ...ticks, ...paths].join("\n");
}
