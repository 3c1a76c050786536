/**
 * Parley as a library, without a hook on messages or with one.
 *
 * `deno run -A hooked.ts PORT none|sync|async [FOLDER]`; FOLDER has another version of Parley.
 */
import type { Hooks, ParleyOptions } from "../../../handlers/parley.ts";

const [port, kind, folder = new URL("../../..", import.meta.url).pathname] = Deno.args;
const { createParley } = await import(`file://${folder}/handlers/parley.ts`);

const isBad = (message: unknown) => typeof message === "string" && message.includes("damn");
const HOOKS: Record<string, Hooks> = {
  none: {},
  sync: {
    onMessage: ({ message }) => isBad(message) ? { message: "d***" } : undefined,
  },
  async: {
    onMessage: ({ message }) => Promise.resolve(isBad(message) ? { message: "d***" } : undefined),
  },
};
const options: ParleyOptions = {
  ...HOOKS[kind],
  limits: { messageRate: 0, byteRate: 1e12, joinRate: 1e9, maxConnections: 20_000 },
};
const parley = createParley(options);
Deno.serve({ hostname: "127.0.0.1", port: Number(port), onListen() {} }, parley.fetch);
