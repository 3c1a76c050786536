/** All Lua scripts by name. Each begins with the ARGV of `OPEN`; a doc comment names the rest. */
export { compare, release, renew, summaries, sync } from "./nodes.ts";
export { join, leave, members, outbox } from "./presence.ts";
export { publish, read } from "./messages.ts";
export { readState, set } from "./state.ts";
