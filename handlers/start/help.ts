/** The settings for people: `--help`, and the table of `handlers/README.md`. */
import type { Setting } from "./setting_kinds.ts";
import { flagOf, GROUPS, type Name, SETTINGS } from "./settings.ts";

/** The text of `--help`, for a terminal of 80 columns. */
export function helpText(): string {
  const rows = Object.entries<Setting<unknown>>(SETTINGS).map(([name, setting]) => {
    const title = GROUPS[name as Name];
    return `${title ? `\n${title}:\n` : ""}${helpRow(name, setting)}`;
  });
  return `Parley: a real-time server for WebSockets with HTTP beside them.

  deno run -A main.ts [flags]

  deno run -A main.ts --port 9000 --log-level debug
  deno run -A main.ts --host 127.0.0.1 --allowed-origins https://app.example
  REDIS_URL=redis://10.0.0.5 WORKERS=auto deno run -A main.ts

Each flag is a variable, too: --max-rooms is MAX_ROOMS. A flag wins.
${rows.join("\n")}

  --help, --version`;
}

/** A flag, and its meaning in lines of at most 80 columns. */
function helpRow(name: string, setting: Setting<unknown>): string {
  const lines = `${setting.meaning} (${shownDefault(setting)})`.match(/\S.{0,50}(?!\S)/g)!;
  return `  --${flagOf(name)}`.padEnd(29) + lines.join(`\n${" ".repeat(29)}`);
}

/** The table of settings, in Markdown. */
export function settingsTable(): string {
  const rows = Object.entries<Setting<unknown>>(SETTINGS).map(([name, setting]) =>
    `| \`${name}\` | \`--${flagOf(name)}\` | ${shownDefault(setting)} | ${setting.meaning} |`
  );
  const head = ["| variable | flag | default | meaning |", "| --- | --- | --- | --- |"];
  return [...head, ...rows].join("\n");
}

function shownDefault(setting: Setting<unknown>): string {
  return setting.shown ?? String(setting.default);
}
