/**
 * nginx and Caddy, started with the files of this folder.
 *
 * @module
 */
import { assert } from "@std/assert";
import { eventually } from "../support/inbox.ts";
import { ROOT } from "../support/process.ts";
import { type AddStep, alone } from "../support/together.ts";

/** Where a test puts a proxy. */
export interface Place {
  port: number;
  directory: string;
  /** `host:port` of several nodes. */
  nodes?: string[];
}
/** A proxy's program, its package, its file, and how to start it. */
export interface Program {
  path: string;
  cure: string;
  file: string;
  /** What stands in the file for the place of this test; each must be there. */
  replace(place: Place): Record<string, string>;
  args(file: string, directory: string): string[];
}

/** nginx before one node. */
export const NGINX: Program = {
  path: "/usr/sbin/nginx",
  cure: "apt-get install nginx-light",
  file: "nginx.conf",
  replace: ({ port, directory }) => ({
    "user www-data;": Deno.uid() === 0 ? "user root;" : "",
    "worker_processes auto;": "worker_processes 1;",
    "pid /run/nginx.pid;": `pid ${directory}/nginx.pid;`,
    "error_log /var/log/nginx/error.log;": "error_log stderr error;",
    "worker_connections 20000;": "worker_connections 1000;",
    "http {": "http {" +
      ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) =>
        `${kind}_temp_path ${directory}/${kind};`
      ).join(" "),
    "unix:/run/parley/parley.sock": `unix:${directory}/parley.sock`,
    "listen 80;": `listen 127.0.0.1:${port};`,
    "client_header_timeout 10s;": "client_header_timeout 1s;",
    "client_body_timeout 10s;": "client_body_timeout 1s;",
    "send_timeout 10s;": "send_timeout 1s;",
  }),
  args: (file, directory) => ["-c", file, "-p", directory, "-g", "daemon off;"],
};

/** Caddy before one node. */
export const CADDY: Program = {
  path: "/usr/bin/caddy",
  cure: "apt-get install caddy",
  file: "Caddyfile",
  replace: ({ port, directory }) => ({
    "unix//run/parley/parley.sock": `unix/${directory}/parley.sock`,
    ":80 {": `http://:${port} {\n\tbind 127.0.0.1`,
    "read_header 10s": "read_header 1s",
    "read_body 10s": "read_body 1s",
  }),
  args: (file) => ["run", "--adapter", "caddyfile", "--config", file],
};

/** Caddy before several nodes. */
export const CADDY_OF_NODES: Program = {
  ...CADDY,
  file: "nodes.Caddyfile",
  replace: ({ port, nodes }) => ({
    "parley1:8000 parley2:8000": nodes!.join(" "),
    ":80 {": `http://:${port} {\n\tbind 127.0.0.1`,
    "health_interval 1s": "health_interval 100ms",
  }),
};

/** Starts a program with its file, changed for this place, and waits until it listens. */
export async function startProxy(program: Program, place: Place): Promise<AsyncDisposable> {
  const { port, directory } = place;
  let text = await Deno.readTextFile(`${ROOT}tests/proxy/${program.file}`);
  for (const [from, to] of Object.entries(program.replace(place))) {
    assert(text.includes(from), `${program.file} has no ${from}`);
    text = text.replace(from, to);
  }
  const file = `${directory}/${program.file}`;
  await Deno.writeTextFile(file, text);
  const process = new Deno.Command(program.path, {
    args: program.args(file, directory),
    clearEnv: true,
    env: { HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
    stdout: "null",
    stderr: "null",
  }).spawn();
  const stop = async () => {
    process.kill("SIGTERM");
    await process.status;
  };
  try {
    await eventually(() => isListening(port), (is) => is, `${program.path} on port ${port}`);
  } catch (error) {
    await stop();
    throw error;
  }
  return { [Symbol.asyncDispose]: stop };
}

async function isListening(port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    return true;
  } catch {
    return false;
  }
}

/** Registers a test that needs the program; without it, it is ignored and shows the cure. */
export function proxyTest(
  program: Program,
  name: string,
  fn: () => Promise<void>,
  add: AddStep = alone,
): void {
  let isThere = true;
  try {
    Deno.statSync(program.path);
  } catch {
    isThere = false;
  }
  const cure = isThere ? "" : ` (needs ${program.path}: ${program.cure})`;
  add(name + cure, fn, !isThere);
}
