/**
 * Parley as a library: one function makes the whole server.
 *
 *     const parley = createParley({
 *       onMessage: ({ message }) => message === "damn" ? refuse("Be kind.") : undefined,
 *     });
 *     Deno.serve(parley.fetch);
 *
 * @module
 */
import { DEFAULT_LIMITS, fullLimits, type Limits } from "./access/limits.ts";
import { createApp, type ParleyOptions } from "./app.ts";
import type { Engine } from "./engine/engine.ts";
import { createMemoryEngine } from "./engine/memory.ts";
import { type Parley, runApp } from "./run_app.ts";
import { systemClock } from "./util/clock.ts";
import { OptionError } from "./util/option_error.ts";

export type { AccessRules, RequestInfo } from "./access/access.ts";
export type { Authorize, Grants } from "./access/grants.ts";
export { type JwtAuthorizer, jwtAuthorizer, type JwtOptions } from "./access/token.ts";
export type * from "./engine/engine.ts";
export type { MemberEvent } from "./engine/member_events.ts";
export type { HistoryLimits, RoomLimits, RoomRule, RoomRules } from "./engine/room_rules.ts";
export { type From, type Hooks, refuse, Refused } from "./hooks/hooks.ts";
export type { HistoryQuery } from "./http/rooms.ts";
export type { Span } from "./protocol/page.ts";
export type { Cursor, Head, StateCursor } from "./protocol/position.ts";
export type * from "./protocol/room_event.ts";
export type { Fetch } from "./router.ts";
export { ParleyError, type PublishOptions, type SetOptions } from "./run_app.ts";
export type { Clock } from "./util/clock.ts";
export type { Log, Write } from "./util/log.ts";
export type { MaybePromise } from "./util/maybe_promise.ts";
export { DEFAULT_LIMITS, type Limits, OptionError, type Parley, type ParleyOptions };

/** Engines that a Parley has: a process hosts each of their rooms once, and the first would hear no more. */
const ownedEngines = new WeakSet<Engine>();

/**
 * Makes a Parley. Ending it (`await using`) drains it and closes its engine, also one that was given.
 * @throws {OptionError} if an option cannot be used
 */
export function createParley(options: ParleyOptions = {}): Parley {
  const { maxMessageBytes, maxQueueBytes } = fullLimits(options.limits);
  if (maxQueueBytes < maxMessageBytes) {
    const least = `must be at least maxMessageBytes (${maxMessageBytes})`;
    throw new OptionError("maxQueueBytes", `${least}, is ${maxQueueBytes}`);
  }
  const { engine } = options;
  if (engine && ownedEngines.has(engine)) throw new OptionError("engine", "another Parley has it");
  const app = createApp(options);
  if (engine) ownedEngines.add(engine);
  return runApp(app);
}

/**
 * Makes the engine that keeps rooms in this process's memory.
 * @throws {OptionError} if a limit cannot be used
 */
export function memoryEngine(limits: Partial<Limits> = {}): Engine {
  return createMemoryEngine(fullLimits(limits), systemClock);
}
