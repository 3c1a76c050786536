/**
 * The slot of a client that stays: a socket or an event stream. It is counted in before the client is
 * served, and counted out once, whatever ends it.
 */
import { HttpError } from "../protocol/http_error.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Capacity, Visitor } from "./access.ts";
import type { Limits } from "./limits.ts";
import type { NoSlot } from "./shared_limits.ts";

/** A client's place among MAX_CONNECTIONS. */
export interface Slot {
  /** Counts the client out; a second call does nothing. */
  release(): void;
}

/** Answers a call of a client that stays. From its answer on, the slot is its to release. */
export type SlotHandler<Call, App> = (call: Call, app: App, slot: Slot) => MaybePromise<Response>;

/** What slots need to know of the server. */
export interface SlotSource {
  registry: Capacity & { acquire(address: string, user?: string): MaybePromise<Slot | NoSlot> };
  limits: Limits;
}

/** Seconds after which a client that found the server full may come back. */
const FULL_RETRY_SECONDS = 5;

/**
 * Serves a client if there is a slot for it; where the handler throws, the slot is released.
 * @throws {HttpError} 503 with `Retry-After` while the server drains or is full, 429 for an address
 * or a user that has too many
 */
export function withSlot<Call extends { visitor: Visitor }, App extends SlotSource>(
  handler: SlotHandler<Call, App>,
): (call: Call, app: App) => Promise<Response> {
  return async (call, app) => {
    const { registry } = app;
    if (registry.isDraining) throw noSlotError(app, "draining");
    if (registry.isOverMemory) throw noSlotError(app, "overloaded");
    const { address, rights } = call.visitor;
    const slot = await registry.acquire(address, rights.user);
    if (typeof slot === "string") throw noSlotError(app, slot);
    try {
      return await handler(call, app, slot);
    } catch (error) {
      slot.release();
      throw error;
    }
  };
}

/** Why there is no slot, as an answer. */
export function noSlotError(
  { limits }: Pick<SlotSource, "limits">,
  reason: NoSlot | "draining" | "overloaded",
): HttpError {
  const seconds = reason === "draining" ? Math.max(1, limits.drainSeconds) : FULL_RETRY_SECONDS;
  const headers = { "retry-after": String(seconds) };
  const whose = reason === "too_many_connections" ? "from this address" : "of this user";
  return reason === "too_many_connections" || reason === "too_many_connections_of_user"
    ? new HttpError(429, "too_many_connections", `Too many connections ${whose}.`, headers)
    : new HttpError(503, reason, `The server is ${reason}.`, headers);
}
