/** A socket that sends to rooms: what that costs it, the answers it waits for, the errors it gets. */
import { Allowance } from "../access/rate_limit.ts";
import { isRefusal } from "../engine/engine.ts";
import type { ErrorCode, ErrorDetails } from "../protocol/encode.ts";
import { errorText } from "../util/log.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { Connection } from "./connection.ts";
import { type Cost, Line, type Rejection, type Sender } from "./sender.ts";

/** Messages of one socket that wait for the engine. */
const MAX_PENDING = 1_000;
const BUSY: Rejection = { refused: "unavailable" };

/** A connection that is charged for what it sends, and told what became of it. */
export abstract class SenderConnection extends Connection implements Sender {
  readonly via = "socket";
  readonly line: Line = new Line();
  /** Made at the first message: an idle socket has none. */
  #allowance?: Allowance;
  /** When the frames that it caused are worked off; see the load watch. */
  paidAt = 0;
  #waitingCount = 0;

  nameIn(room: string): string | undefined {
    return this.rooms.get(room)?.name;
  }

  tryConsume({ size, frames = 0, opensRoom = false }: Cost): MaybePromise<number> {
    const { clock, limits, load } = this.registry;
    const now = clock.elapsedMs();
    const allowance = this.#allowance ??= new Allowance(limits, now);
    let retry = allowance.tryConsume(size, opensRoom, now);
    if (allowance.isOver(now)) this.close("rateLimited");
    if (retry === 0) retry = load.charge(frames, this, now);
    const { user } = this.rights;
    if (retry > 0 || user === undefined || limits.messageRatePerUser === 0) return retry;
    return chain(this.registry.sharedLimits.trySend(user), (retry) => {
      if (retry > 0) allowance.refuse(now);
      if (allowance.isOver(now)) this.close("rateLimited");
      return retry;
    });
  }

  /** Why no room may be called now: too many answers are awaited. */
  protected get busy(): Rejection | undefined {
    return this.#waitingCount - this.line.enteringCount < MAX_PENDING ? undefined : BUSY;
  }

  /** Takes a room's answer, now or later; a refusal becomes an error to the peer. */
  protected answer<T>(
    answer: MaybePromise<T | Rejection>,
    details: ErrorDetails,
    next?: (result: Exclude<T, Rejection>) => void,
  ): void {
    if (answer instanceof Promise) {
      this.#waitingCount++;
      const take = (result: T | Rejection) => {
        this.#waitingCount--;
        this.answer(result, details, next);
      };
      // No engine of Parley's rejects; a program's own might.
      answer.then(take, (error) => {
        this.registry.log.error(`Cannot answer: ${errorText(error)}`, { event: "error" });
        take(BUSY);
      });
    } else if (this.hasEnded) return;
    else if (isRefusal(answer)) this.refuse(answer as Rejection, details);
    else next?.(answer as Exclude<T, Rejection>);
  }

  protected refuse({ refused, retry, text, rev }: Rejection, details: ErrorDetails): void {
    // Without a digest there is no conflict.
    this.fail(refused === "conflict" ? "unavailable" : refused, { ...details, rev }, retry, text);
  }

  protected fail(
    code: ErrorCode,
    { id, room, rev }: ErrorDetails,
    retry?: number,
    text?: string,
  ): void {
    this.registry.counters.refuse(code);
    const error = this.dialect.error(code, { id, room, rev, retry, text });
    if (error !== undefined) this.notify(error);
  }
}
