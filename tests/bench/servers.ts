/** The servers that are compared: how each is started, and what it needs. */

import type { Dialect } from "./ledger.ts";
import type { CommandLine } from "./server_process.ts";

/** A port of 127.0.0.1, or the path of a Unix domain socket. */
export type Address = number | string;

/** A server to measure. */
export interface Server {
  /** Short name, for `--servers` and JSON. */
  name: string;
  /** Heading in the table. */
  label: string;
  /** Whether it is Parley, what Parley is held against, or another's work. */
  role: "parley" | "control" | "peer";
  /** What its chat sockets speak. */
  dialect: Dialect;
  /** Listens on a Unix domain socket, and is measured only where sockets are compared. */
  unix?: boolean;
  /** Has no other echo than a server above it. */
  chatOnly?: boolean;
  /** Left out of `--quick`: never the best peer. */
  slow?: boolean;
  command(address: Address): CommandLine;
  /** Prints a version, or fails when the server is not installed. */
  version: readonly string[];
  /** What installs it. */
  install: string;
}

const XDG_CACHE = Deno.env.get("XDG_CACHE_HOME");
/** Folder of the npm packages of the peers. */
export const CACHE = `${XDG_CACHE ?? `${Deno.env.get("HOME")}/.cache`}/parley-bench`;

const NPM = { bun: "bun@1.4.5", ws: "ws@8.23.0" };
const BUN = `${CACHE}/node_modules/.bin/bun`;
const PYTHON = "/usr/bin/python3";
const DENO = Deno.execPath();

/** The absolute path of a file beside this one. */
export const here = (path: string): string => new URL(path, import.meta.url).pathname;

// What one client may do is raised, and nothing else but the room for 10,000. Without a limit of messages
// nobody is refused while the server is behind: full speed is what is measured.
const RAISED = {
  HOST: "127.0.0.1",
  MESSAGE_RATE: "0",
  BYTE_RATE: "1000000000000",
  JOIN_RATE: "1000000000",
  MAX_CONNECTIONS: "20000",
  LOG_LEVEL: "warn",
};

/** Parley's command line with `env` beside the raised rates. */
export function parleyCommand(
  address: Address,
  env: Record<string, string> = {},
): CommandLine {
  const args = [DENO, "run", "-A", here("../../main.ts")];
  return typeof address === "number"
    ? {
      args: [...args, "--port", String(address)],
      env: { ...RAISED, ...env },
    }
    : { args, env: { ...RAISED, SOCKET_PATH: address, ...env } };
}

const parley = {
  role: "parley",
  dialect: "plain",
  command: (address: Address) => parleyCommand(address),
  version: ["true"],
  install: "",
} as const;

const control = {
  role: "control",
  dialect: "plain",
  command: (address: Address) => ({
    args: [DENO, "run", "-A", here("peers/control.ts"), String(address)],
  }),
  version: [DENO, "eval", "console.log(Deno.version.deno)"],
  install: "",
} as const;

const python = (way: string) => ({
  role: "peer",
  slow: true,
  dialect: "plain",
  command: (address: Address) => ({
    args: [PYTHON, here("peers/websockets_chat.py"), String(address), way],
  }),
  version: [PYTHON, "-c", "import websockets as w; print(w.version.version)"],
  install: "apt-get install -y python3-websockets",
} as const);

/** Every server: Parley first, then the control, then the peers. */
export const SERVERS: Server[] = [
  { ...parley, name: "parley", label: "Parley plain" },
  {
    ...parley,
    name: "parley-v1",
    label: "Parley `parley.v1`",
    dialect: "v1",
    chatOnly: true,
  },
  {
    ...parley,
    name: "parley-unix",
    label: "Parley plain, SOCKET_PATH",
    unix: true,
  },
  { ...control, name: "control", label: "bare Deno" },
  {
    ...control,
    name: "control-unix",
    label: "bare Deno, Unix socket",
    unix: true,
  },
  {
    name: "bun",
    label: "Bun `publish`",
    role: "peer",
    dialect: "plain",
    command: (address) => ({
      args: [BUN, here("peers/bun.js"), String(address)],
    }),
    version: [BUN, "--version"],
    install: `npm install --prefix ${CACHE} ${NPM.bun}`,
  },
  {
    name: "ws",
    label: "`ws` on Node",
    role: "peer",
    slow: true,
    dialect: "plain",
    command: (address) => ({
      args: ["node", here("peers/ws.mjs"), String(address), CACHE],
    }),
    version: ["node", "-p", `require("${CACHE}/node_modules/ws/package").version`],
    install: `npm install --prefix ${CACHE} ${NPM.ws}`,
  },
  {
    ...python("gather"),
    name: "python",
    label: "Python `gather`",
  },
  {
    ...python("broadcast"),
    name: "python-broadcast",
    label: "Python `broadcast()`",
    chatOnly: true,
  },
];

/** The version a server says it has, or null when it is not installed. */
export async function installedVersion(server: Server): Promise<string | null> {
  const [command, ...args] = server.version;
  try {
    const output = await new Deno.Command(command, { args }).output();
    const text = new TextDecoder().decode(output.stdout).trim();
    return output.success ? text : null;
  } catch {
    return null;
  }
}
