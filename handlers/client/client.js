// @ts-check
/**
 * The Parley client for browsers and Deno: one connection that speaks `parley.v1`, comes back by
 * itself, and delivers every message of its rooms once and in order, or says by `onGap` that some
 * are missing.
 *
 * @module
 */

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} State Only `closed` is final.
 * @typedef {{ epoch: string, seq: number }} Cursor A place in a room's order.
 * @typedef {{ room: string, epoch: string, seq: number }} Receipt Where a sent message stands.
 * @typedef {{ room: string, epoch: string, seq: number, time: number, sender: string, message: unknown }} Message
 * A chat message: `time` in Unix ms, `message` any JSON value.
 * @typedef {{ room: string, event: "join" | "leave", name: string, was?: string, members: number, message: string }} Status
 * Somebody came, went, or took another name (`was` is the old one); `members` counts who is joined.
 * @typedef {{ room: string, epoch: string, seq: number, members: number, recovered?: boolean }} Welcome
 * A room answered, at first or after a reconnect; its next message is `seq` + 1.
 * @typedef {{ room: string, from: Cursor, to: Cursor }} Gap Messages after `from` up to `to` are
 * missing. With another epoch, or `to.seq` below `from.seq`, the order starts anew after `to`.
 * @typedef {{ members: string[], count: number }} Members Names of those who joined, sorted, at
 * most 1,000; `count` is of all.
 * @typedef {ReturnType<typeof connect>} Client A connection made by `connect`. Promises it returns
 * may be ignored.
 */

/**
 * @typedef {object} Options
 * @property {string} [room] Room of the connection. Default: the URL's, else `lobby`.
 * @property {string} [name] Name to join it with. Default: none; the client listens until `join`.
 * @property {string | (() => string | Promise<string>)} [token] A JWT, or a function that is asked
 * for one at every connect.
 * @property {number} [history] How many of the room's last messages to start with. Default: 0.
 * @property {(message: Message) => void} [onMessage] Each message of each room, your own too.
 * @property {(status: Status) => void} [onStatus] Who came and went.
 * @property {(welcome: Welcome) => void} [onWelcome] A room answered.
 * @property {(gap: Gap) => void} [onGap] Messages are missing; called before any later one.
 * @property {(state: State) => void} [onState] The state changed, but by your own `close()`.
 * @property {(error: ParleyError) => void} [onError] A refusal that answers no `send`; why, when
 * `state` is `closed`.
 */

/**
 * @typedef {{ id: string, name?: string, epoch?: string, seq: number, ready: boolean }} Room
 * `ready` once this connection brought its welcome.
 * @typedef {{ resolve: (receipt: Receipt) => void, reject: (error: ParleyError) => void, room: Room, json: string, id: number, sentAt: number, epoch?: string, unsure: boolean }} Send
 * `id` is 0 while the server surely does not have it; `unsure` once an attempt had no answer.
 * @typedef {{ resolve: (members: Members) => void, reject: (error: ParleyError) => void }} Question
 * @typedef {{ type: "error", code: string, message: string, id?: string, room?: string, retry?: number }} Refusal
 * @typedef {{ type: "welcome" } & Welcome | { type: "chat" } & Omit<Message, "epoch"> | { type: "status" } & Status | { type: "ack", id: string } & Receipt | Refusal | { type: "members", room: string } & Members | { type: "bye", retry: number } | { type: "pong" }} ServerObject
 */

const DIALECT = "parley.v1";
const MAX_FRAME_BYTES = 16_384;
const MAX_PENDING = 10_000;
// The server knows a session's last 1,000 ids, for 5 minutes: no more are given while one has no
// answer, and one minute is for the way.
const MAX_UNACKED = 1_000;
const RESEND_MS = 240_000;
const BACKOFF_MS = 250;
const BACKOFF_CAP_MS = 10_000;
const STEADY_MS = 10_000;
const HANDSHAKE_MS = 20_000;
const SILENCE_MS = 25_000;
const PONG_MS = 10_000;
const TICK_MS = 5_000;
const encoder = new TextEncoder();

/** What the server or this client refused. */
export class ParleyError extends Error {
  /**
   * @param {string} code One of the protocol's codes, or `unknown` (perhaps kept, perhaps not),
   * `busy`, `closed`, `bad_token`, `bad_protocol`, `http_` and a status, or the reason of a final
   * close with `_` for blanks.
   * @param {string} message The same for people.
   * @param {string} [room] The room it is about, where there is one.
   */
  constructor(code, message, room) {
    super(message);
    this.name = "ParleyError";
    this.code = code;
    this.room = room;
  }
}

/**
 * Connects to a room of a Parley server and stays connected until `close()` or a final refusal.
 *
 * @param {string | URL} url `ws://host/chat/ops`, or a base such as `https://host`; relative to this
 * module's own URL.
 * @param {Options} [options]
 * @throws {TypeError} When `url` cannot be parsed or is none of `ws:`, `wss:`, `http:`, `https:`.
 * @throws {ParleyError} `bad_room` when the room's name is outside the grammar.
 */
export function connect(url, options = {}) {
  const base = new URL(url, import.meta.url);
  if (!/^(ws|http)s?:$/.test(base.protocol)) {
    throw new TypeError(`Cannot connect to ${base}: not a ws(s) or http(s) URL`);
  }
  const [path, named] = /\/(?:chat(?:\/([^/]*))?\/?)?$/.exec(base.pathname) ?? [""];
  const home = checkRoom(options.room ?? (named || "lobby"));
  base.protocol = base.protocol.replace("http", "ws");
  base.pathname = `${base.pathname.slice(0, -path.length || undefined)}/chat/${home}`;
  base.hash = "";

  const session = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const { token } = options;
  const getToken = async () => typeof token === "function" ? await token() : token;
  let on = options;
  /** @type {State} */
  let state = "connecting";
  /** @type {Map<string, Room>} */
  const rooms = new Map();
  /** @type {Map<string, Question[]>} */
  const questions = new Map();

  /** @type {WebSocket | undefined} */
  let socket;
  let attempt = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let failures = 0, notBefore = 0, openedAt = 0, heardAt = 0, deadline = 0;
  let progress = false, leaving = false;

  /** @type {string[]} */
  const lines = [];
  /** @type {Set<Send>} What has no answer yet, in the order of `send()`. */
  const sends = new Set();
  /** @type {Map<number, Send>} Those of them that have an id, oldest first. */
  const sent = new Map();
  /** @type {Set<Send>} Those of them that went out on this socket. */
  const flying = new Set();
  /** @type {Set<string>} Rooms whose join, listen or leave is to be repeated after the pause. */
  const refused = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pause;
  let scheduled = false, lastId = 0, acked = 0, setbacks = 0;
  let allowed = MAX_UNACKED;

  const ticker = setInterval(tick, TICK_MS);
  globalThis.addEventListener?.("online", online);
  enter(home).name = options.name;
  open();

  // The connection.

  async function open() {
    timer = undefined;
    const { signal } = attempt = new AbortController();
    let jwt;
    try {
      jwt = await getToken();
    } catch (cause) {
      if (signal.aborted) return;
      lost();
      return report(new ParleyError("bad_token", `Cannot get a token: ${cause}`));
    }
    if (signal.aborted) return;
    const address = new URL(base);
    const room = rooms.get(home);
    if (room?.epoch) address.searchParams.set("after", `${room.epoch}:${room.seq}`);
    else if (on.history) address.searchParams.set("history", `${on.history}`);
    try {
      socket = new WebSocket(address, jwt ? [DIALECT, `token.${jwt}`] : DIALECT);
    } catch (cause) {
      return end(new ParleyError("closed", `Cannot connect to ${base}: ${cause}`));
    }
    deadline = Date.now() + HANDSHAKE_MS;
    socket.onopen = greet;
    socket.onmessage = read;
    const headers = jwt ? { authorization: `Bearer ${jwt}` } : undefined;
    socket.onclose = () => askWhy(address.href.replace("ws", "http"), headers, signal);
  }

  /**
   * A browser hides why a handshake failed; a plain GET of the same address tells.
   *
   * @param {string} url @param {HeadersInit | undefined} headers @param {AbortSignal} signal
   */
  async function askWhy(url, headers, signal) {
    try {
      const response = await fetch(url, { headers, signal, cache: "no-store" });
      const { code, message } = await response.json().catch(() => ({}));
      if (signal.aborted) return;
      const { status } = response;
      if (status >= 400 && status < 500 && status !== 426 && status !== 429) {
        return end(new ParleyError(code ?? `http_${status}`, message ?? `HTTP status ${status}`));
      }
      notBefore = Date.now() + (Number(response.headers.get("retry-after")) * 1000 || 0);
    } catch {
      // No network and no answer: only time helps.
    }
    if (!signal.aborted) lost();
  }

  /** Lets go of the socket at once: on a dead network its close event may take minutes. */
  function drop() {
    clearTimeout(timer);
    clearTimeout(pause);
    timer = pause = undefined;
    attempt.abort();
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      socket = undefined;
    }
    // Of what flew, nothing got through: less of it may, before the next cut.
    if (flying.size && !acked) allowed = Math.max(1, allowed / 2);
    deadline = lines.length = acked = 0;
    progress = leaving = false;
    refused.clear();
    for (const room of rooms.values()) room.ready = false;
    for (const send of flying) putBack(send, true);
  }

  function lost(code = 1006, reason = "") {
    const wasOpen = state === "open";
    const steady = progress || Date.now() - openedAt > STEADY_MS;
    drop();
    const renewable = reason === "token expired" && typeof token === "function";
    if (code === 1009 || (code === 1008 && !renewable)) {
      const name = reason.replaceAll(" ", "_") || "closed";
      return end(new ParleyError(name, `Closed by the server: ${code} ${reason}`));
    }
    // At once only after a connection that was good for something, lest two machines spin.
    if (!wasOpen) failures ||= 1;
    else if (steady) failures = 0;
    wait(failures && backoff(failures));
    failures++;
    if (wasOpen) become("reconnecting");
  }

  /** @param {number} ms On top of what the server asked for. */
  function wait(ms) {
    clearTimeout(timer);
    timer = setTimeout(open, Math.max(0, notBefore - Date.now()) + ms);
  }

  /** @param {ParleyError} error */
  function end(error) {
    if (state === "closed") return;
    drop();
    clearInterval(ticker);
    globalThis.removeEventListener?.("online", online);
    state = "closed";
    for (const send of sends) fail(send);
    for (const id of questions.keys()) answer(id, ({ reject }) => reject(closed()));
    report(error);
    become(state);
  }

  /** Notices sends past their time, a handshake that hangs, and a dead network. */
  function tick() {
    const now = Date.now();
    for (const send of sends) if (isLate(send)) fail(send);
    if (deadline && now >= deadline) lost();
    else if (state === "open" && now - heardAt >= SILENCE_MS) ping();
  }

  function ping() {
    deadline ||= Date.now() + PONG_MS;
    post({ type: "ping" });
  }

  function online() {
    if (state === "open") ping();
    else if (timer) wait(0);
  }

  // What comes in.

  function greet() {
    if (socket?.protocol !== DIALECT) {
      return end(new ParleyError("bad_protocol", `${base} does not speak ${DIALECT}`));
    }
    socket.onclose = ({ code, reason }) => lost(code, reason);
    openedAt = heardAt = Date.now();
    deadline = 0;
    state = "open";
    for (const room of rooms.values()) if (room.id !== home || room.name !== undefined) ask(room);
    if (!rooms.has(home)) post({ type: "leave", room: home });
    for (const room of questions.keys()) post({ type: "members", room });
    become(state);
  }

  /** @param {MessageEvent} event */
  function read({ data }) {
    const { signal } = attempt;
    heardAt = Date.now();
    deadline = 0;
    for (const line of typeof data === "string" ? data.split("\n") : []) {
      if (signal.aborted) return;
      let object;
      try {
        object = JSON.parse(line);
      } catch {
        // Had it been a message, the next number shows the hole.
      }
      if (object) handle(object);
    }
    flush();
  }

  /** @param {ServerObject} object */
  function handle(object) {
    switch (object.type) {
      case "welcome":
        return welcome(object);
      case "chat":
        return deliver(object);
      case "error":
        return refuse(object);
      case "status":
        if (rooms.has(object.room)) tell(() => on.onStatus?.(object));
        return;
      case "members":
        return answer(object.room, ({ resolve }) => {
          resolve({ members: object.members, count: object.count });
        });
      case "ack": {
        const send = sent.get(Number(object.id));
        if (!send) return;
        const { room, epoch, seq } = object;
        settle(send).resolve({ room, epoch, seq });
        allowed = Math.min(MAX_UNACKED, allowed + 1 / allowed);
        acked++;
        setbacks = 0;
        progress = true;
        return;
      }
      case "bye":
        leaving = true;
        notBefore = Date.now() + object.retry;
        clearTimeout(timer);
        timer = setTimeout(lost, object.retry);
    }
  }

  /** @param {Welcome} object */
  function welcome(object) {
    const room = rooms.get(object.room);
    if (!room) return;
    const { epoch, seq, recovered } = object;
    const from = room.epoch && { epoch: room.epoch, seq: room.seq };
    const gap = from && (recovered === false || epoch !== from.epoch || seq > from.seq);
    if (!from || gap) Object.assign(room, { epoch, seq });
    room.ready = true;
    if (gap) tell(() => on.onGap?.({ room: room.id, from, to: { epoch, seq } }));
    tell(() => on.onWelcome?.(object));
  }

  /** @param {Omit<Message, "epoch">} object */
  function deliver({ room: id, seq, time, sender, message }) {
    const room = rooms.get(id);
    const epoch = room?.epoch;
    if (!room?.ready || !epoch || seq <= room.seq) return;
    progress = seq === room.seq + 1;
    // A hole that the server did not announce: what it kept fills it.
    if (!progress) return lost();
    room.seq = seq;
    tell(() => on.onMessage?.({ room: id, epoch, seq, time, sender, message }));
  }

  /** @param {Refusal} refusal */
  function refuse({ code, message, id, room: named = "", retry }) {
    const later = code === "rate_limited" || code === "unavailable";
    const send = sent.get(Number(id));
    const room = send?.room ?? rooms.get(named);
    const error = new ParleyError(code, message, room?.id || named);
    if (send && room) {
      if (later || (code === "not_joined" && refused.has(room.id))) {
        putBack(send, code === "unavailable");
      } else settle(send).reject(error);
    } else if (id === undefined) {
      const asked = answer(named, ({ reject }) => reject(error));
      if (!later) {
        if (room && !room.ready && room.id !== home) forget(room, error);
        report(error);
      } else if (named && !asked) refused.add(named);
    }
    if (later) hold(retry ?? backoff(setbacks + 1));
  }

  // What goes out.

  /**
   * Sends no message for a while, then what was refused before anything newer. Like TCP, halves how
   * much may fly; each ack widens it.
   *
   * @param {number} ms
   */
  function hold(ms) {
    if (!pause) {
      allowed = Math.max(1, Math.min(allowed, acked) / 2);
      acked = 0;
      setbacks++;
    }
    clearTimeout(pause);
    pause = setTimeout(() => {
      for (const id of refused) {
        const room = rooms.get(id);
        if (room) ask(room);
        else post({ type: "leave", room: id });
      }
      refused.clear();
      pause = undefined;
      schedule();
    }, ms);
  }

  /** @param {string} id */
  function enter(id) {
    /** @type {Room} */
    const room = { id: checkRoom(id), seq: 0, ready: false };
    rooms.set(id, room);
    return room;
  }

  /** @param {Room} room */
  function ask({ id, name, epoch, seq }) {
    const after = epoch && `${epoch}:${seq}`;
    if (name === undefined) post({ type: "listen", room: id, after });
    else post({ type: "join", room: id, name, session, after });
  }

  /** @param {Room} room @param {ParleyError} [error] Why; by default `closed`. */
  function forget(room, error) {
    rooms.delete(room.id);
    for (const send of sends) if (send.room === room && !flying.has(send)) fail(send, error);
  }

  /** @param {string} id @param {(question: Question) => void} how */
  function answer(id, how) {
    questions.get(id)?.forEach(how);
    return questions.delete(id);
  }

  /** @param {Send} send */
  function settle(send) {
    sends.delete(send);
    sent.delete(send.id);
    flying.delete(send);
    return send;
  }

  /** @param {Send} send @param {ParleyError} error What it rejects with if it was surely not kept. */
  function fail(send, error = closed(send.room.id)) {
    const text = "The message may or may not have been delivered";
    settle(send).reject(send.id ? new ParleyError("unknown", text, send.room.id) : error);
  }

  /** @param {Send} send @param {boolean} unsure Whether this attempt may have been kept. */
  function putBack(send, unsure) {
    flying.delete(send);
    send.unsure ||= unsure;
    if (!send.unsure) {
      sent.delete(send.id);
      send.id = 0;
    }
    if (rooms.get(send.room.id) !== send.room) fail(send);
  }

  /** Turns waiting sends into lines, as far as the server's memory of ids and its patience go. */
  function pump() {
    if (socket?.readyState !== WebSocket.OPEN || leaving || pause) return;
    const [oldest = lastId + 1] = sent.keys();
    for (const send of sends) {
      if (flying.size >= Math.floor(allowed)) return;
      if (flying.has(send) || !send.room.ready) continue;
      if (send.id || lastId - oldest < MAX_UNACKED - 1) transmit(send);
    }
  }

  /** @param {Send} send */
  function transmit(send) {
    const { room, json } = send;
    if (!send.id) Object.assign(send, { id: ++lastId, sentAt: Date.now(), epoch: room.epoch });
    else if (send.epoch !== room.epoch || isLate(send)) return fail(send);
    sent.set(send.id, send);
    flying.add(send);
    const to = JSON.stringify(room.id);
    lines.push(`{"type":"chat","room":${to},"id":"${send.id}","message":${json}}`);
  }

  /** @param {Record<string, unknown>} object */
  function post(object) {
    if (state !== "open") return;
    pump();
    lines.push(JSON.stringify(object));
    schedule();
  }

  function schedule() {
    if (!scheduled) queueMicrotask(flush);
    scheduled = true;
  }

  function flush() {
    scheduled = false;
    pump();
    if (socket?.readyState !== WebSocket.OPEN) return;
    let frame = "", bytes = 0;
    for (const line of lines.splice(0)) {
      const more = encoder.encode(line).length + 1;
      if (frame && bytes + more > MAX_FRAME_BYTES + 1) {
        socket.send(frame);
        frame = "";
        bytes = 0;
      }
      frame += frame ? `\n${line}` : line;
      bytes += more;
    }
    if (frame) socket.send(frame);
  }

  // What the page hears.

  /** @param {() => void} call A page's mistake in it must not cost the next message. */
  function tell(call) {
    try {
      call();
    } catch (error) {
      reportError(error);
    }
  }

  /** @param {ParleyError} error */
  function report(error) {
    tell(() => on.onError?.(error));
  }

  /** @param {State} now */
  function become(now) {
    state = now;
    tell(() => on.onState?.(now));
  }

  return {
    /** Where the connection is; the client leaves every state but `closed` by itself. */
    get state() {
      return state;
    },

    /**
     * Sends a message, now or once there is a connection, and again until its fate is known.
     *
     * @param {unknown} message Any JSON value.
     * @param {{ room?: string }} [options] Default: the room of the connection.
     * @returns {Promise<Receipt>} Resolves when the server keeps the message. Rejects with a
     * `ParleyError`: `unknown` if it was sent and not answered within 4 minutes and one epoch,
     * `busy` while 10,000 wait, `closed`, or the server's code.
     */
    send(message, { room: id = home } = {}) {
      return handled((resolve, reject) => {
        const room = rooms.get(id);
        if (state === "closed") throw closed(id);
        if (!room) throw new ParleyError("not_joined", `Not joined: ${id}`, id);
        if (sends.size >= MAX_PENDING) {
          throw new ParleyError("busy", `${MAX_PENDING} messages wait already`, id);
        }
        let json;
        try {
          json = JSON.stringify(message) ?? '""';
        } catch (cause) {
          throw new ParleyError("bad_message", `Not JSON: ${cause}`, id);
        }
        sends.add({ resolve, reject, room, json, id: 0, sentAt: 0, unsure: false });
        schedule();
      });
    },

    /**
     * Joins a room under a name, or takes another name there. `onError` reports a refusal.
     *
     * @param {string} name
     * @param {string} [id] Default: the room of the connection.
     * @throws {ParleyError} `bad_room`
     */
    join(name, id = home) {
      const room = rooms.get(id) ?? enter(id);
      room.name = name;
      ask(room);
    },

    /**
     * Hears one more room, without a name. `onWelcome` or `onError` answers.
     *
     * @param {string} id
     * @throws {ParleyError} `bad_room`
     */
    listen(id) {
      if (!rooms.has(id)) ask(enter(id));
    },

    /**
     * Leaves a room and stops hearing it. What still waits to be sent there rejects.
     *
     * @param {string} [id] Default: the room of the connection.
     */
    leave(id = home) {
      const room = rooms.get(id);
      if (!room) return;
      post({ type: "leave", room: id });
      forget(room);
    },

    /**
     * Asks who has joined a room.
     *
     * @param {string} [id] Default: the room of the connection.
     * @returns {Promise<Members>} Rejects with a `ParleyError`.
     */
    members(id = home) {
      return handled((resolve, reject) => {
        if (state === "closed") throw closed(id);
        const asked = questions.get(id);
        if (asked) return asked.push({ resolve, reject });
        questions.set(id, [{ resolve, reject }]);
        post({ type: "members", room: id });
      });
    },

    /**
     * Asks the token function for a fresh token and gives it to the server, best before the old one
     * expires. Rejects when the function does.
     */
    async refreshToken() {
      const { signal } = attempt;
      const jwt = await getToken();
      if (!signal.aborted) post({ type: "token", token: jwt });
    },

    /** Ends the connection for good. What waits rejects; no callback is called any more. */
    close() {
      on = {};
      for (const send of sends) send.id = 0;
      end(closed());
    },
  };
}

/** @param {number} failures */
function backoff(failures) {
  return Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** failures);
}

/** @param {Send} send */
function isLate({ id, sentAt }) {
  return id > 0 && Date.now() - sentAt > RESEND_MS;
}

/** @param {string} id */
function checkRoom(id) {
  if (!/^[\w.:-]{1,64}$/.test(id)) throw new ParleyError("bad_room", `No room's name: ${id}`, id);
  return id;
}

/** @param {string} [room] */
function closed(room) {
  return new ParleyError("closed", "The client is closed or has left the room", room);
}

/**
 * A promise whose rejection may go unseen: by itself it would end a Deno process.
 *
 * @template T
 * @param {(resolve: (value: T) => void, reject: (error: ParleyError) => void) => void} executor
 * @returns {Promise<T>}
 */
function handled(executor) {
  const promise = new Promise(executor);
  promise.catch(() => {});
  return promise;
}
