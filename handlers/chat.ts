/** One chat socket: its frames in, calls to rooms out. `handlers/README.md`, Chat. */
import type { Rights } from "./access/grants.ts";
import { checkHandshake } from "./access/handshake.ts";
import { Allowance } from "./access/rate_limit.ts";
import type { App, ClientHandler, Visitor } from "./app.ts";
import { isRefusal } from "./engine/engine.ts";
import { ack, type ErrorCode, type ErrorDetails, membersList, pong } from "./protocol/encode.ts";
import { type ClientMessage, parse } from "./protocol/parse.ts";
import { readWanted, type Wanted } from "./protocol/position.ts";
import { Connection, type ConnectionHandler } from "./registry/connection.ts";
import type { Member, Rejection, Room } from "./registry/room.ts";
import { type Cost, Line } from "./registry/sender.ts";
import { byteLength } from "./util/bytes.ts";
import { chain, type MaybePromise } from "./util/maybe_promise.ts";

/** Makes the handler of chat sockets. */
export function chat(app: App): ClientHandler {
  return ({ request, url, room, visitor }, slot) => {
    const dialect = checkHandshake(request);
    const { idleTimeoutSeconds } = app.limits;
    const { signal } = request;
    const { socket, response } = app.upgrade(request, { dialect, idleTimeoutSeconds });
    const options = { ...visitor, slot, signal, dialect, homeRoom: room };
    const connection = new Connection(socket, app.registry, options);
    const wanted = readWanted(url.searchParams);
    connection.handler = new ChatSocket(app, connection, room, wanted, visitor.renew);
    return response;
  };
}

/** Messages of one socket that wait for the engine. */
const MAX_PENDING = 1_000;

type Message<Type extends ClientMessage["type"]> = Extract<ClientMessage, { type: Type }>;

class ChatSocket implements ConnectionHandler, Member {
  readonly via = "socket";
  readonly line = new Line();
  /** Made at the first message: an idle socket has none. */
  #allowance?: Allowance;
  /** When the frames that it caused are paid for; the load watch says how. */
  paidAt = 0;
  #pending = 0;
  /** What an `id` counts in: the client's own secret, else this socket. */
  #session: string;
  /** How many tokens it has sent, and which of them counts. */
  #sentTokens = 0;
  #usedToken = 0;

  constructor(
    readonly app: App,
    readonly subscriber: Connection,
    readonly home: string,
    readonly wanted: Wanted,
    readonly renewRights: Visitor["renew"],
  ) {
    this.#session = `connection:${subscriber.id}`;
  }

  get rights(): Rights {
    return this.subscriber.rights;
  }

  get address(): string {
    return this.subscriber.address;
  }

  nameIn(room: string): string | undefined {
    return this.subscriber.rooms.get(room)?.name;
  }

  tryConsume({ size, frames = 0, opensRoom = false }: Cost): number {
    const { clock, limits, registry } = this.app;
    const now = clock.now();
    this.#allowance ??= new Allowance(limits, now);
    const retry = this.#allowance.tryConsume(size, opensRoom, now);
    if (this.#allowance.isOver(now)) this.subscriber.close("rateLimited");
    if (retry > 0 || limits.messageRate === 0) return retry;
    return registry.load.charge(frames, this, now);
  }

  ready(): void {
    this.#subscribe(this.home, this.wanted);
    for (const room of this.rights.listen) this.#subscribe(room, {});
  }

  text(text: string): void {
    if (!this.subscriber.dialect.isMerged || !text.includes("\n")) return this.#handle(text);
    for (const line of text.split("\n")) {
      this.#handle(line);
      if (this.subscriber.hasEnded) return;
    }
  }

  binary(data: ArrayBuffer): void {
    if (this.#hasSpace({})) this.#answer(this.#room().relay(data, this), {});
  }

  #handle(text: string): void {
    const message = parse(text, this.subscriber.dialect);
    const size = byteLength(text);
    const room = this.#room("room" in message ? message.room : undefined);
    switch (message.type) {
      case "chat":
      case "note":
        return this.#publish(message, room, size);
      case "join":
        return this.#join(message, room, size);
    }
    // What reaches no room is charged here.
    const opensRoom = message.type === "listen" || message.type === "leave";
    this.app.registry.counters.messagesIn++;
    const retry = this.tryConsume({ size, opensRoom });
    if (retry > 0) return this.#fail("rate_limited", message as ErrorDetails, retry);
    switch (message.type) {
      case "listen":
        return this.#inOrder(message, () => this.#subscribe(room.name, message));
      case "leave":
        return this.#inOrder(message, () => room.leave(this.subscriber));
      case "members":
        return this.#listMembers(room);
      case "ping":
        return this.subscriber.notify(pong(message.id));
      case "token":
        this.#renew(message.token);
        return;
      case "bad":
        return this.#fail(message.code, message);
    }
  }

  #room(name: string = this.home): Room {
    return this.app.registry.room(name);
  }

  #publish(post: Message<"chat" | "note">, room: Room, size: number): void {
    if (!this.#hasSpace(post)) return;
    const { type: kind, message } = post;
    const id = post.type === "chat" ? post.id : undefined;
    const key = id === undefined ? undefined : { session: this.#session, id };
    const outcome = room.publish({ kind, message, size, key }, this);
    this.#answer(
      outcome,
      post,
      id === undefined ? undefined : (position) => {
        if (position) this.subscriber.notify(ack(id, room.name, position));
      },
    );
  }

  #join(message: Message<"join">, room: Room, size: number): void {
    const { name, after, session } = message;
    // At once: messages behind this one have their ids in the session, before the join is answered.
    if (session !== undefined) this.#session = `session:${session}`;
    if (this.#hasSpace(message)) this.#answer(room.join({ name, after, size }, this), message);
  }

  #inOrder(details: ErrorDetails, task: () => void): void {
    if (this.#hasSpace(details)) this.#answer(this.line.run(task), details);
  }

  #subscribe(name: string, wanted: Wanted): void {
    if (this.subscriber.rooms.has(name)) return;
    chain(this.#room(name).subscribe(this.subscriber, wanted), (refusal) => {
      if (refusal) this.#refuse(refusal, { room: name });
    });
  }

  #listMembers(room: Room): void {
    const details = { room: room.name };
    if (!this.#hasSpace(details)) return;
    this.#answer(room.members(this), details, (members) => {
      this.subscriber.notify(membersList(room.name, members));
    });
  }

  /** Takes a fresh token, unless one that was sent later counts already. */
  async #renew(token: string): Promise<void> {
    const number = ++this.#sentTokens;
    const rights = await this.renewRights?.(token).catch(() => undefined);
    if (this.subscriber.hasEnded || number < this.#usedToken) return;
    const { subject, name } = this.rights;
    if (!rights || rights.subject !== subject || rights.name !== name) {
      return this.#fail("forbidden", {});
    }
    this.#usedToken = number;
    this.subscriber.rights = rights;
    if (!rights.maySubscribe(this.home)) return this.subscriber.close("notAllowed");
    for (const { room } of [...this.subscriber.rooms.values()]) {
      if (rights.maySubscribe(room.name)) continue;
      room.leave(this.subscriber);
      this.#fail("forbidden", { room: room.name });
    }
  }

  /** Whether one more call of a room may wait for its answer; else the peer is told. */
  #hasSpace(details: ErrorDetails): boolean {
    if (this.#pending < MAX_PENDING) return true;
    this.#fail("unavailable", details);
    return false;
  }

  /** Takes a room's answer, now or later; a refusal becomes an error to the peer. */
  #answer<T>(
    answer: MaybePromise<T | Rejection>,
    details: ErrorDetails,
    next?: (result: Exclude<T, Rejection>) => void,
  ): void {
    if (answer instanceof Promise) {
      this.#pending++;
      answer.then((result) => {
        this.#pending--;
        this.#answer(result, details, next);
      });
    } else if (this.subscriber.hasEnded) return;
    else if (isRefusal(answer)) this.#refuse(answer as Rejection, details);
    else next?.(answer as Exclude<T, Rejection>);
  }

  #refuse({ refused, retry, text }: Rejection, details: ErrorDetails): void {
    // Without a digest there is no conflict.
    this.#fail(refused === "conflict" ? "unavailable" : refused, details, retry, text);
  }

  #fail(code: ErrorCode, { id, room }: ErrorDetails, retry?: number, text?: string): void {
    this.app.registry.counters.refuse(code);
    const error = this.subscriber.dialect.error(code, { id, room, retry, text });
    if (error !== undefined) this.subscriber.notify(error);
  }
}
