/**
 * One chat socket: its events in, calls to rooms and engine out. `PROTOCOL.md`, Chat.
 *
 * @module
 */
import { checkHandshake } from "./access/handshake.ts";
import { Allowance } from "./access/rate_limit.ts";
import type { Rights } from "./access/grants.ts";
import type { ClientHandler } from "./access/slot.ts";
import type { App, Visitor } from "./app.ts";
import { isRefusal, type Refusal } from "./engine/engine.ts";
import { ack, type ErrorCode, membersList, plainError, pong, v1Error } from "./protocol/encode.ts";
import { type ClientMessage, isServerRoom, parse } from "./protocol/parse.ts";
import type { Connection, ConnectionHandler } from "./registry/connection.ts";
import type { Room, Wanted } from "./registry/room.ts";
import { byteLength } from "./util/bytes.ts";
import { runAt } from "./util/clock.ts";
import { chain, type MaybePromise } from "./util/maybe_promise.ts";

/** Makes the handler of chat sockets. */
export function chat(app: App): ClientHandler {
  return ({ request, url, room, visitor }, slot) => {
    const dialect = checkHandshake(request);
    const { socket, response } = app.upgrade(request, {
      dialect,
      idleTimeoutSeconds: app.limits.idleTimeoutSeconds,
    });
    const connection = app.registry.connect(socket, { ...visitor, slot, dialect, kind: "chat" });
    connection.homeRoom = room;
    const history = Number(url.searchParams.get("history"));
    const wanted = {
      after: url.searchParams.get("after") ?? undefined,
      history: Number.isInteger(history) && history > 0 ? history : 0,
    };
    new ChatSocket(app, connection, visitor, room, wanted);
    return response;
  };
}

/** What a socket is in a room: a listener, and a member once it has a name. */
interface Membership {
  room: Room;
  name?: string;
}

/** What an error is about. */
interface About {
  id?: string;
  room?: string;
}

/** One frame is answered with at most so many refusals. */
const MAX_REFUSALS_PER_FRAME = 1_000;
/** Lines that an engine has not answered yet. */
const MAX_PENDING = 1_000;

class ChatSocket implements ConnectionHandler {
  #memberships = new Map<string, Membership>();
  /** Made at the first message: an idle socket has none. */
  #allowance?: Allowance;
  #pending = 0;
  #rights: Rights;
  #renewRights?: Visitor["renew"];
  /** What it wants of the past, until it is open. */
  #wanted?: Wanted;
  #stopExpiry?: () => void;
  /** What an `id` counts in: the client's own secret, else this socket. */
  #session?: string;

  constructor(
    readonly app: App,
    readonly connection: Connection,
    { rights, renew }: Visitor,
    readonly home: string,
    wanted: Wanted,
  ) {
    this.#rights = rights;
    this.#renewRights = renew;
    this.#wanted = wanted;
    connection.handler = this;
  }

  ready(): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    this.#watchExpiry();
    this.#hear(this.home, wanted ?? {});
  }

  left(): void {
    this.#stopExpiry?.();
    for (const name of [...this.#memberships.keys()]) this.#leave(name);
  }

  text(text: string): void {
    const { dialect } = this.connection;
    if (dialect === "plain" || !text.includes("\n")) return this.#onObject(text);
    let refusals = 0;
    for (const line of text.split("\n")) {
      this.#onObject(line);
      if (this.connection.hasEnded) return;
      if (this.#allowance?.isRefusing && ++refusals > MAX_REFUSALS_PER_FRAME) {
        return this.connection.close("rateLimited");
      }
    }
  }

  #onObject(text: string): void {
    this.app.registry.counters.messagesIn++;
    const message = parse(text, this.connection.dialect);
    const retry = this.#charge(message.type, byteLength(text));
    if (retry > 0) return this.#fail("rate_limited", message as About, retry);
    this.#handle(message);
  }

  binary(data: ArrayBuffer): void {
    this.app.registry.counters.messagesIn++;
    const retry = this.#charge("binary", data.byteLength);
    if (retry > 0) return this.#fail("rate_limited", {}, retry);
    const membership = this.#memberships.get(this.home);
    if (membership?.name === undefined) return this.#fail("not_joined", {});
    if (!this.#rights.maySpeak(this.home)) return this.#fail("forbidden", {});
    membership.room.engine.relay(this.home, new Uint8Array(data), this.connection.id);
  }

  /** Takes a message from what the socket may do; answers the ms to wait if that is too little. */
  #charge(type: ClientMessage["type"] | "binary", size: number): number {
    const { clock, limits } = this.app;
    const now = clock.now();
    this.#allowance ??= new Allowance(limits, now);
    const opens = type === "join" || type === "listen" || type === "leave";
    const retry = this.#allowance.tryConsume(size, opens, now);
    if (this.#allowance.isOver(now)) this.connection.close("rateLimited");
    return retry;
  }

  #handle(message: ClientMessage): void {
    switch (message.type) {
      case "chat":
        return this.#chat(message);
      case "join":
        return this.#join(message);
      case "listen":
        if (!this.#memberships.has(message.room)) this.#hear(message.room, message);
        return;
      case "leave":
        return this.#leave(message.room ?? this.home);
      case "members":
        return this.#members(message.room ?? this.home);
      case "ping":
        return this.connection.tell(pong(message.id));
      case "token":
        this.#renew(message.token);
        return;
      case "bad":
        return this.#fail(message.code, message);
    }
  }

  #chat(message: Extract<ClientMessage, { type: "chat" }>): void {
    const { id, room = this.home } = message;
    if (isServerRoom(room)) return this.#fail("forbidden", message);
    const membership = this.#memberships.get(room);
    if (membership?.name === undefined) return this.#fail("not_joined", message);
    if (!this.#rights.maySpeak(room)) return this.#fail("forbidden", message);
    const session = this.#session ?? `connection:${this.connection.id}`;
    const draft = {
      sender: membership.name,
      message: JSON.stringify(message.message),
      key: id === undefined ? undefined : { session, id },
    };
    const timed = this.app.registry.counters.timeFanOut();
    this.#ask(message, () => membership.room.engine.publish(room, draft), (place) => {
      timed?.();
      if (id !== undefined) this.connection.tell(ack(id, room, place));
    });
  }

  #join(message: Extract<ClientMessage, { type: "join" }>): void {
    const { room = this.home, session } = message;
    const { name = message.name ?? "Anonymous" } = this.#rights;
    const isOther = message.name !== undefined && message.name !== name;
    if (isServerRoom(room) || isOther) return this.#fail("forbidden", message);
    if (!this.#memberships.has(room)) this.#hear(room, message);
    const membership = this.#memberships.get(room);
    if (!membership) return;
    if (membership.name === undefined) this.app.registry.counters.members++;
    membership.name = name;
    if (session !== undefined) this.#session = `session:${session}`;
    const { id, remote } = this.connection;
    this.#ask(message, () => membership.room.engine.join(room, id, name), () => {
      this.#log("joined", `${remote} is ${JSON.stringify(name)} in ${room}`, name, room);
    });
  }

  #members(room: string): void {
    const membership = this.#memberships.get(room);
    if (!membership) return this.#fail("not_joined", { room });
    this.#ask({ room }, () => membership.room.engine.members(room), (members) => {
      this.connection.tell(membersList(room, members));
    });
  }

  /** Begins to hear a room: its `welcome` comes, or an error. */
  #hear(name: string, wanted: Wanted): void {
    if (this.#memberships.size >= this.app.limits.maxRoomsPerConnection) {
      return this.#fail("too_many_rooms", { room: name });
    }
    if (!this.#rights.maySubscribe(name)) return this.#fail("forbidden", { room: name });
    const membership: Membership = { room: this.app.registry.room(name) };
    this.#memberships.set(name, membership);
    const { after, history } = wanted;
    chain(membership.room.listen(this.connection, { after, history }), (refusal) => {
      if (!refusal || this.#memberships.get(name) !== membership) return;
      this.#memberships.delete(name);
      this.#fail(codeOf(refusal), { room: name });
    });
  }

  #leave(name: string): void {
    const membership = this.#memberships.get(name);
    if (!membership) return;
    this.#memberships.delete(name);
    membership.room.unlisten(this.connection);
    if (membership.name === undefined) return;
    this.app.registry.counters.members--;
    membership.room.engine.leave(name, this.connection.id);
    const was = `${this.connection.remote} was ${JSON.stringify(membership.name)} in ${name}`;
    this.#log("left", was, membership.name, name);
  }

  #log(event: "joined" | "left", text: string, name: string, room: string): void {
    const { remote } = this.connection;
    const clients = this.app.registry.clients.size;
    const fields = { event, remote, name, room, clients };
    this.app.log.info(`Client ${event}: ${text}. Total clients: ${clients}`, fields);
  }

  /** Takes a fresh token. One that cannot hear this room ends the socket. */
  async #renew(token: string): Promise<void> {
    const rights = await this.#renewRights?.(token).catch(() => undefined);
    if (this.connection.hasEnded) return;
    const isSame = rights?.subject === this.#rights.subject && rights.name === this.#rights.name;
    if (!rights || !isSame) return this.#fail("forbidden", {});
    this.#rights = rights;
    this.#watchExpiry();
    if (!rights.maySubscribe(this.home)) return this.connection.close("notAllowed");
    for (const room of this.#memberships.keys()) {
      if (rights.maySubscribe(room)) continue;
      this.#leave(room);
      this.#fail("forbidden", { room });
    }
  }

  #watchExpiry(): void {
    this.#stopExpiry?.();
    const { expiresAt } = this.#rights;
    if (expiresAt === undefined) return;
    const end = () => this.connection.close("tokenExpired");
    this.#stopExpiry = runAt(this.app.clock, expiresAt, end);
  }

  /** Asks the engine in order, without waiting for it; a refusal becomes the sender's error. */
  #ask<T>(
    about: About,
    call: () => MaybePromise<T | Refusal>,
    next: (result: Exclude<T, Refusal>) => void,
  ): void {
    if (this.#pending >= MAX_PENDING) return this.#fail("unavailable", about);
    this.#pending++;
    chain(call(), (result) => {
      this.#pending--;
      if (this.connection.hasEnded) return;
      if (isRefusal(result)) this.#fail(codeOf(result), about);
      else next(result as Exclude<T, Refusal>);
    });
  }

  #fail(code: ErrorCode, about: About, retry?: number): void {
    this.app.registry.counters.refuse(code);
    const { id, room } = about;
    this.connection.tell(
      this.connection.dialect === "plain" ? plainError(code) : v1Error(code, { id, room, retry }),
    );
  }
}

/** An engine's refusal as the code of an error; without a digest there is no `conflict`. */
function codeOf({ refused }: Refusal): ErrorCode {
  return refused === "conflict" ? "unavailable" : refused;
}
