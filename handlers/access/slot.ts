/**
 * The slot of a client that stays: a socket or an event stream. It is counted in before the client is
 * served, and counted out once, whatever ends it.
 *
 * @module
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
export type SlotHandler<Call> = (call: Call, slot: Slot) => MaybePromise<Response>;

/** What slots need to know of the server. */
export interface SlotSource {
  registry: Capacity & { acquire(address: string): MaybePromise<Slot | NoSlot> };
  limits: Limits;
}

/** Seconds after which a client that found the server full may come back. */
const FULL_RETRY_SECONDS = 5;

/**
 * Serves a client if there is a slot for it; where the handler throws, the slot is released.
 *
 * @throws {HttpError} 503 with `Retry-After` while the server drains or is full, 429 for an address
 * that has too many
 */
export function withSlot<Call extends { visitor: Visitor }>(
  app: SlotSource,
  handler: SlotHandler<Call>,
): (call: Call) => Promise<Response> {
  const { registry } = app;
  return async (call) => {
    if (registry.isDraining) throw noSlotError(app, "draining");
    if (registry.isOverMemory) throw noSlotError(app, "overloaded");
    const slot = await registry.acquire(call.visitor.address);
    if (typeof slot === "string") throw noSlotError(app, slot);
    try {
      return await handler(call, slot);
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
  return reason === "too_many_connections"
    ? new HttpError(429, reason, "Too many connections from this address.", headers)
    : new HttpError(503, reason, `The server is ${reason}.`, headers);
}
