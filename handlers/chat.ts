/** One chat socket: its frames in, calls to rooms out. `handlers/README.md`, Chat. */
import { checkHandshake, type Socket } from "./access/handshake.ts";
import type { ClientHandler } from "./app.ts";
import { ack, type ErrorDetails, membersList, pong } from "./protocol/encode.ts";
import { type ClientMessage, isServerRoom, parse } from "./protocol/parse.ts";
import { type Cursor, readWanted, type StateCursor, type Wanted } from "./protocol/position.ts";
import { join, leave, subscribe } from "./registry/membership.ts";
import type { Registry } from "./registry/registry.ts";
import type { Room } from "./registry/room.ts";
import { SenderConnection } from "./registry/sender_connection.ts";
import type { SubscriberOptions } from "./registry/subscriber.ts";
import { byteLength } from "./util/bytes.ts";
import { chain } from "./util/maybe_promise.ts";

/** Opens a chat socket. @throws {HttpError} if the request is no handshake */
export const chat: ClientHandler = ({ request, url, room, visitor }, app, slot) => {
  const dialect = checkHandshake(request);
  const { idleTimeoutSeconds } = app.limits;
  const { signal } = request;
  // In the plain dialect the query belongs to the program.
  const wanted = dialect.stateful ? readWanted(url.searchParams) : {};
  const { socket, response } = app.upgrade(request, { dialect, idleTimeoutSeconds });
  const options = { ...visitor, slot, signal, dialect, homeRoom: room };
  new ChatSocket(socket, app.registry, options, room, wanted);
  return response;
};

type Message<Type extends ClientMessage["type"]> = Extract<ClientMessage, { type: Type }>;

class ChatSocket extends SenderConnection {
  /** What an `id` counts in: the client's own secret, else this socket. */
  #session = `connection:${this.id}`;
  readonly #renewRights: SubscriberOptions["renew"];
  /** How many tokens it has sent, and which of them counts. */
  #sentTokens = 0;
  #usedToken = 0;

  constructor(
    socket: Socket,
    registry: Registry,
    options: SubscriberOptions,
    readonly home: string,
    readonly wanted: Wanted,
  ) {
    super(socket, registry, options);
    this.#renewRights = options.renew;
  }

  protected override ready(): void {
    this.#subscribe(this.home, this.wanted);
    for (const room of this.rights.listen) this.#subscribe(room, {});
  }

  protected text(text: string): void {
    if (!this.dialect.isMerged || !text.includes("\n")) return this.#handle(text);
    for (const line of text.split("\n")) {
      this.#handle(line);
      if (this.hasEnded) return;
    }
  }

  protected binary(data: ArrayBuffer): void {
    this.answer(this.busy ?? this.#room().relay(data, this), {});
  }

  #handle(text: string): void {
    const message = parse(text, this.dialect);
    const size = byteLength(text);
    const room = this.#room("room" in message ? message.room : undefined);
    switch (message.type) {
      case "chat":
      case "note":
        return this.#publish(message, room, size);
      case "set":
        return this.#set(message, room, size);
      case "join":
        return this.#join(message, room, size);
    }
    // What reaches no room is charged here.
    const opensRoom = message.type === "listen" || message.type === "leave";
    // Whoever watches the server's figures is in none of them.
    if (!isServerRoom(this.home)) this.registry.counters.messagesIn++;
    chain(this.tryConsume({ size, opensRoom }), (retry) => {
      if (this.hasEnded) return;
      if (retry === 0) return this.#answerHere(message, room);
      const { id, room: named }: ErrorDetails = message as ErrorDetails;
      this.fail("rate_limited", { id, room: named }, retry);
    });
  }

  #answerHere(
    message: Exclude<ClientMessage, Message<"chat" | "note" | "set" | "join">>,
    room: Room,
  ) {
    switch (message.type) {
      case "listen":
        return this.answer(
          this.busy ?? this.line.run(() => this.#subscribe(room.name, message)),
          message,
        );
      case "leave":
        return this.answer(this.busy ?? this.line.run(() => leave(room, this)), message);
      case "got":
        return room.got(message.rev, this);
      case "members":
        return this.answer(this.busy ?? room.members(this), { room: room.name }, (members) => {
          this.notify(membersList(room.name, members));
        });
      case "ping":
        return this.notify(pong(message.id));
      case "token":
        return void this.#renew(message.token);
      case "bad":
        return this.fail(message.code, message);
    }
  }

  #room(name: string = this.home): Room {
    return this.registry.room(name);
  }

  #publish(post: Message<"chat" | "note">, room: Room, size: number): void {
    const { type: kind, message } = post;
    const id = post.type === "chat" ? post.id : undefined;
    const key = id === undefined ? undefined : { session: this.#session, id };
    const draft = { kind, message, size, key };
    this.answer(this.busy ?? room.publish(draft, this), post, this.#acks(id, room));
  }

  #set(message: Message<"set">, room: Room, size: number): void {
    const { key, value, if: rev, ttl: ttlSeconds, bind, id } = message;
    // A bound key goes with this socket, and so does what was sent once by it.
    const session = `set:${bind ? `connection:${this.id}` : this.#session}`;
    const member = bind ? this.id : undefined;
    const once = id === undefined ? undefined : { session, id };
    const change = { key, value, size, if: rev, ttlSeconds, member, id: once };
    this.answer(this.busy ?? room.set(change, this), message, this.#acks(id, room));
  }

  /** What tells the peer where its message or change stands, if it gave an `id`. */
  #acks(id: string | undefined, room: Room) {
    if (id === undefined) return;
    return (position: Cursor | StateCursor | void) => {
      if (position) this.notify(ack(id, room.name, position));
    };
  }

  #join(message: Message<"join">, room: Room, size: number): void {
    const { name, session, type: _, room: __, ...wanted } = message;
    // At once: messages behind this one have their ids in the session, before the join is answered.
    if (session !== undefined) this.#session = `session:${session}`;
    this.answer(this.busy ?? join(room, { name, ...wanted, size }, this), message);
  }

  #subscribe(name: string, wanted: Wanted): void {
    if (this.rooms.has(name)) return;
    this.answer(subscribe(this.#room(name), this, wanted), { room: name });
  }

  /** Takes a fresh token, unless one that was sent later counts already. */
  async #renew(token: string): Promise<void> {
    const number = ++this.#sentTokens;
    const rights = await this.#renewRights?.(token).catch(() => undefined);
    if (this.hasEnded || number < this.#usedToken) return;
    const { user, name } = this.rights;
    if (!rights || rights.user !== user || rights.name !== name) {
      return this.fail("forbidden", {});
    }
    this.#usedToken = number;
    this.rights = rights;
    if (!rights.maySubscribe(this.home)) return this.close("notAllowed");
    for (const { room } of [...this.rooms.values()]) {
      if (rights.maySubscribe(room.name)) continue;
      leave(room, this);
      this.fail("forbidden", { room: room.name });
    }
  }
}
