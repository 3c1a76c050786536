// @ts-check
// @ts-self-types="./client.d.ts"
/**
 * The Parley client for browsers, Deno, Node and Bun: one `parley.v1` connection that reconnects by itself and
 * delivers each message of its rooms once and in order, or reports a gap. @module
 */

/** @import { Client, Connection, Cursor, Entry, Members, Message, Note, Options, Receipt, Status, Welcome } from "./client.d.ts" */

/**
 * @typedef {Record<string, unknown> & { key?: string, if?: number, bind?: boolean }} Said
 * @typedef {{
 *   welcome: Welcome & { limits?: { messageBytes: number } },
 *   chat: Omit<Message, "epoch">,
 *   note: Note,
 *   status: Status,
 *   ack: Receipt & { id: string, rev?: number },
 *   set: Entry<any> & { room: string },
 *   state: { room: string, epoch: string, rev: number, since?: number, entries: Entry<any>[], more?: boolean },
 *   error: { code: string, message: string, id?: string, room?: string, retry?: number, rev?: number },
 *   members: Members & { room: string },
 *   bye: { retry: number },
 * }} ServerObjects What the server says, by type.
 */

const DIALECT = "parley.v1";
const MAX_FRAME_BYTES = 16_384;
const MAX_PENDING = 10_000;
// The server remembers a session's last 1,000 ids for 5 minutes, of which the network gets one.
const MAX_UNACKED = 1_000;
// The server lets 64 kB of state be on their way to a client that says what it has got.
const GOT_BYTES = 16_384;
const RESEND_MS = 240_000;
const BACKOFF_MS = 250;
const BACKOFF_CAP_MS = 10_000;
const STEADY_MS = 10_000;
const HANDSHAKE_MS = 20_000;
const MAX_TOKENS = 3;
// Who waits for an answer learns of a dead network within 14 seconds.
const SILENCE_MS = 25_000;
const WAITING_SILENCE_MS = 4_000;
const PONG_MS = 8_000;
const OFFLINE_PONG_MS = 3_000;
const TICK_MS = 1_000;
const NETWORK_EVENTS = ["online", "offline"];
const encoder = new TextEncoder();
// What relative URLs count from. Not inside `new URL(…)`, where bundlers look for files; and a
// bundler may make a file's URL of it, or nothing.
const MODULE_URL = import.meta.url;
const BASE_URL = /^https?:/.test(MODULE_URL) ? MODULE_URL : globalThis.location?.href;
/** Makes an error an uncaught one. Node has no `reportError`. */
const raise = globalThis.reportError ?? ((error) => void Promise.reject(error));
/** For durations: the system's clock may be set at any time. */
const now = () => performance.now();

/** What the server or this client refused. */
export class ParleyError extends Error {
  /**
   * @param {string} code One of the protocol's codes or of those in README.md.
   * @param {string} message @param {string} [room] @param {number} [rev] Of `rev_conflict`.
   */
  constructor(code, message, room, rev) {
    super(message);
    this.name = "ParleyError";
    this.code = code;
    this.room = room;
    this.rev = rev;
  }
}

/**
 * @typedef {object} Send A message on its way, or a change of the state, which has a key.
 * @property {PromiseWithResolvers<any>} answer
 * @property {Room} room
 * @property {Said} what
 * @property {string} json The same as JSON.
 * @property {number} id 0 while the server surely does not have it.
 * @property {number} sentAt By the monotonic clock, in ms.
 * @property {string} [epoch] Of the room when it was first sent.
 * @property {number} [rev] Of the change, once it has been acked.
 * @property {boolean} unsure Whether an attempt had no answer.
 */

/** What is known of a room, and what of it waits for an answer. */
class Room {
  /** The last name that the server took. @type {string | undefined} */
  name;
  /** Names that it has not answered yet, in order. @type {string[]} */
  asked = [];
  /** @type {string | undefined} */
  epoch;
  seq = 0;
  /** Whether this connection brought its welcome. */
  ready = false;
  /** The epoch of `entries`; none before the first state. @type {string | undefined} */
  stateEpoch;
  /** The change that `entries` are at, and the last one that the server was told of. */
  rev = 0;
  gotRev = -1;
  /** @type {Map<string, Entry<any>>} */
  entries = new Map();
  /** The same for the page. @type {Map<string, any>} */
  values = new Map();
  /** Of a state whose last part has not come yet. @type {Entry<any>[]} */
  parts = [];
  /** The last `set` of each key that has no answer yet. @type {Map<string, Send>} */
  latest = new Map();
  /** Keys that end with this connection, as they were set. @type {Map<string, Send>} */
  bound = new Map();

  /** @param {string} id */
  constructor(id) {
    this.id = checkRoom(id);
  }
}

/**
 * Connects to a room of a Parley server and stays connected until `close()` or a final refusal.
 *
 * @template [Body=unknown]
 * @template [Value=unknown]
 * @param {string | URL} url @param {Options<Body, Value>} [options]
 * @returns {Client<Body, Value>}
 */
export function connect(url, options = {}) {
  const base = new URL(url, URL.canParse(url) ? undefined : BASE_URL);
  if (!/^(ws|http)s?:$/.test(base.protocol)) {
    throw new TypeError(`Cannot connect to ${base}: not a ws(s) or http(s) URL`);
  }
  const [path, named] = /\/(?:chat(?:\/([^/]*))?\/?)?$/.exec(base.pathname) ?? [""];
  const home = checkRoom(options.room ?? (decode(named) || "lobby"));
  base.protocol = base.protocol.replace("http", "ws");
  base.pathname = `${base.pathname.slice(0, -path.length || undefined)}/`;
  base.hash = "";

  const session = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const { token } = options;
  const getToken = async () => typeof token === "function" ? await token() : token;
  let on = options;
  const every = Object(options.state).every;
  /** @type {Connection} */
  let connection = "connecting";
  /** @type {Map<string, Room>} */
  const rooms = new Map();
  /** Of `members()`, by room. @type {Map<string, PromiseWithResolvers<Members>>} */
  const questions = new Map();

  /** @type {WebSocket | undefined} */
  let socket;
  let attempt = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let failures = 0, notBefore = 0, openedAt = 0, heardAt = 0, deadline = 0;
  let refusedTokens = 0, strangerStatus = 0;
  /** The longest frame and object that the server takes; 0 until it has said so. */
  let messageBytes = 0;
  /** How much of the state has come since the server was last told so. */
  let stateChars = 0;
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
  for (const type of NETWORK_EVENTS) globalThis.addEventListener?.(type, hearNetwork);
  addRoom(home, options.name);
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
    const { after, state, ...paced } = position(rooms.get(home));
    const history = after ? undefined : on.history;
    const address = addressOf(`chat/${home}`, { after, history, state: state && 1, ...paced });
    try {
      socket = new WebSocket(address, jwt ? [DIALECT, `token.${jwt}`] : DIALECT);
    } catch (cause) {
      return end(new ParleyError("closed", `Cannot connect to ${address}: ${cause}`));
    }
    deadline = now() + HANDSHAKE_MS;
    socket.onopen = greet;
    socket.onmessage = read;
    socket.onclose = () => askWhy(address, jwt);
  }

  /** @param {string} path @param {Record<string, unknown>} query What is empty is left out. */
  function addressOf(path, query) {
    const address = new URL(base);
    address.pathname += path;
    for (const [name, value] of Object.entries(query)) {
      if (value) address.searchParams.set(name, `${value}`);
    }
    return address;
  }

  /** A GET, and its answer, also as an error. @param {URL} url @param {string} [jwt] @param {AbortSignal} [signal] */
  async function get({ href }, jwt, signal) {
    const headers = jwt ? { authorization: `Bearer ${jwt}` } : undefined;
    const how = { headers, signal, cache: /** @type {const} */ ("no-store") };
    const response = await fetch(href.replace("ws", "http"), how);
    const { status } = response;
    const body = (await response.json().catch(() => {})) ?? {};
    const { code = `http_${status}`, message = `HTTP status ${status}` } = body;
    return { response, status, body, error: new ParleyError(code, message) };
  }

  /** Asks why a handshake failed, which browsers hide. @param {URL} address @param {string} [jwt] */
  async function askWhy(address, jwt, { signal } = attempt) {
    try {
      const { response, status, body, error } = await get(address, jwt, signal);
      if (signal.aborted) return;
      notBefore = now() + (Number(response.headers.get("retry-after")) * 1000 || 0);
      const isFinal = status >= 400 && status < 500;
      if (!isFinal || body.type !== "error") {
        // The page of a proxy, perhaps while the server is being replaced.
        if (isFinal && status !== strangerStatus) {
          report(new ParleyError(`http_${status}`, `HTTP status ${status}, trying again`));
        }
        strangerStatus = status;
      } else if (status === 401 && typeof token === "function" && ++refusedTokens < MAX_TOKENS) {
        // Perhaps it was just too old: the next one may do.
      } else if (status !== 426 && status !== 429) return end(error);
    } catch {
      // No network and no answer: only time helps.
    }
    if (!signal.aborted) lost();
  }

  /** Drops the socket at once: on a dead network its close event may take minutes. */
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
    // Nothing that was sent got through: less is sent before the next cut.
    if (flying.size && !acked) allowed = Math.max(1, allowed / 2);
    deadline = lines.length = 0;
    acked = messageBytes = stateChars = 0;
    progress = leaving = false;
    refused.clear();
    for (const send of flying) putBack(send, true);
    for (const room of rooms.values()) {
      Object.assign(room, { ready: false, gotRev: -1, parts: [] });
      setBoundAgain(room);
    }
  }

  function lost(code = 1006, reason = "") {
    const wasOpen = connection === "open";
    const steady = progress || now() - openedAt > STEADY_MS;
    drop();
    const renewable = reason === "token expired" && typeof token === "function";
    if (code === 1009 || (code === 1008 && !renewable)) {
      const name = reason.replaceAll(" ", "_") || "closed";
      return end(new ParleyError(name, `Closed by the server: ${code} ${reason}`));
    }
    // At once only after a useful connection: two machines must not spin.
    if (!wasOpen) failures ||= 1;
    else if (steady) failures = 0;
    wait(failures && backoff(failures));
    failures++;
    if (wasOpen) become("reconnecting");
  }

  /** @param {number} ms On top of what the server asked for. */
  function wait(ms) {
    clearTimeout(timer);
    timer = setTimeout(open, Math.max(0, notBefore - now()) + ms);
  }

  /** @param {ParleyError} error */
  function end(error) {
    if (connection === "closed") return;
    drop();
    clearInterval(ticker);
    for (const type of NETWORK_EVENTS) globalThis.removeEventListener?.(type, hearNetwork);
    connection = "closed";
    for (const send of sends) fail(send);
    for (const { reject } of questions.values()) reject(closed());
    questions.clear();
    report(error);
    become(connection);
  }

  /** Times out old sends, a handshake that hangs, and a dead network. */
  function tick() {
    for (const send of sends) if (isLate(send)) fail(send);
    const patience = flying.size + questions.size > 0 ? WAITING_SILENCE_MS : SILENCE_MS;
    if (deadline) {
      if (now() >= deadline) lost();
    } else if (connection === "open" && now() - heardAt >= patience) ping(PONG_MS);
  }

  /** @param {number} patienceMs How long to wait for a sign of life. */
  function ping(patienceMs) {
    deadline = Math.min(deadline || Infinity, now() + patienceMs);
    enqueue({ type: "ping" });
  }

  /** @param {Event} event */
  function hearNetwork({ type }) {
    if (connection === "open") ping(type === "online" ? PONG_MS : OFFLINE_PONG_MS);
    else if (timer && type === "online") wait(0);
  }

  // What comes in.

  function greet() {
    if (socket?.protocol !== DIALECT) {
      return end(new ParleyError("bad_protocol", `${base} does not speak ${DIALECT}`));
    }
    socket.onclose = ({ code, reason }) => lost(code, reason);
    openedAt = heardAt = now();
    deadline = refusedTokens = strangerStatus = 0;
    connection = "open";
    for (const room of rooms.values()) {
      if (room.name !== undefined && room.name !== room.asked[0]) room.asked.unshift(room.name);
      if (room.id !== home || room.asked.length) subscribe(room);
    }
    if (!rooms.has(home)) enqueue({ type: "leave", room: home });
    for (const room of questions.keys()) enqueue({ type: "members", room });
    become(connection);
  }

  /** @param {MessageEvent} event */
  function read({ data }) {
    const { signal } = attempt;
    heardAt = now();
    deadline = 0;
    for (const line of typeof data === "string" ? data.split("\n") : []) {
      if (signal.aborted) return;
      let object;
      try {
        object = JSON.parse(line);
      } catch {
        // If it was a message, the next number shows the gap.
      }
      const type = /** @type {keyof ServerObjects} */ (object?.type);
      if (type === "state" || type === "set") stateChars += line.length;
      if (Object.hasOwn(handlers, type)) handlers[type](object);
    }
    if (stateChars >= GOT_BYTES && !signal.aborted) sayGot();
    flush();
  }

  /** @type {{ [Type in keyof ServerObjects]: (object: ServerObjects[Type]) => void }} */
  const handlers = {
    welcome(object) {
      messageBytes ||= object.limits?.messageBytes ?? Infinity;
      const room = rooms.get(object.room);
      if (!room) return;
      const { epoch, seq, recovered } = object;
      const from = room.epoch && { epoch: room.epoch, seq: room.seq };
      const gap = from && (recovered === false || epoch !== from.epoch || seq > from.seq);
      if (!from || gap) Object.assign(room, { epoch, seq });
      room.ready = true;
      if (from && epoch !== from.epoch) setBoundAgain(room);
      if (gap) notify(() => on.onGap?.({ room: room.id, from, to: { epoch, seq } }));
      notify(() => on.onWelcome?.(object));
    },

    chat(object) {
      const { seq } = object;
      const room = rooms.get(object.room);
      const epoch = room?.epoch;
      if (!room?.ready || !epoch || seq <= room.seq) return;
      progress = seq === room.seq + 1;
      // A gap that the server did not announce: coming back fills it.
      if (!progress) return lost();
      room.seq = seq;
      notify(() => on.onMessage?.({ epoch, seq, ...bodyOf(object) }));
    },

    note: (note) => rooms.has(note.room) && notify(() => on.onNote?.(bodyOf(note))),

    status(object) {
      const room = rooms.get(object.room);
      if (!room) return;
      const { event, name } = object;
      const at = event === "join" ? room.asked.indexOf(name) : -1;
      if (at >= 0) {
        room.asked.splice(0, at + 1);
        room.name = name;
      }
      notify(() => on.onStatus?.(object));
    },

    ack({ id, room, epoch, seq, rev }) {
      const send = sent.get(Number(id));
      if (!send) return;
      const { key = "", bind } = send.what;
      const { bound, entries } = send.room;
      settle(send).resolve(rev === undefined ? { room, epoch, seq } : { room, epoch, rev });
      send.rev = rev;
      if (bind && rev && (entries.get(key)?.rev ?? 0) <= rev) bound.set(key, send);
      else bound.delete(key);
      allowed = Math.min(MAX_UNACKED, allowed + 1 / allowed);
      acked++;
      setbacks = 0;
      progress = true;
    },

    set({ room, rev, time, sender, key, value }) {
      const at = rooms.get(room);
      if (!at?.stateEpoch || rev <= at.rev) return;
      const entries = [{ key, value, sender, time, rev }];
      handlers.state({ room, epoch: at.stateEpoch, rev, since: rev - 1, entries });
    },

    state({ room: id, epoch, rev, since, entries, more }) {
      const room = rooms.get(id);
      if (!room?.ready) return;
      progress = true;
      room.parts.push(...entries);
      if (more) return;
      const changes = room.parts.splice(0);
      if (since !== undefined) {
        if (epoch !== room.stateEpoch || since > room.rev) return lost();
        if (rev < room.rev) return;
      } else {
        const kept = new Set(changes.map(({ key }) => key));
        const gone = [...room.entries.values()].filter(({ key }) => !kept.has(key));
        changes.push(...gone.map((entry) => ({ ...entry, value: null })));
      }
      Object.assign(room, { stateEpoch: epoch, rev });
      if (room.gotRev < 0) stateChars = GOT_BYTES;
      for (const entry of changes) {
        const { key, value } = entry;
        if (value === null) room.entries.delete(key) && room.values.delete(key);
        else room.entries.set(key, entry) && room.values.set(key, value);
        // Somebody else's now, or gone.
        if (entry.rev > (room.bound.get(key)?.rev ?? Infinity)) room.bound.delete(key);
      }
      notify(() => on.onState?.({ room: id, epoch, rev, entries: changes }));
    },

    members: ({ room, members, count }) => takeQuestion(room)?.resolve({ members, count }),

    bye({ retry }) {
      leaving = true;
      notBefore = now() + retry;
      clearTimeout(timer);
      timer = setTimeout(lost, retry);
    },

    error({ code, message, id, room: named = "", retry, rev }) {
      const later = code === "rate_limited" || code === "unavailable";
      const send = sent.get(Number(id));
      const room = send?.room ?? rooms.get(named);
      const error = new ParleyError(code, message, room?.id || named, rev);
      if (send && room) {
        if (later || (code === "not_joined" && refused.has(room.id))) {
          putBack(send, code === "unavailable");
        } else settle(send).reject(error);
      } else if (id === undefined) {
        const question = code === "bad_name" ? undefined : takeQuestion(named);
        question?.reject(error);
        if (!later) {
          if (!question) room?.asked.shift();
          if (room && !room.ready && room.id !== home) forget(room, error);
          report(error);
        } else if (named && !question && !(room?.ready && room.asked.length === 0)) {
          // Otherwise it was a note, which is not repeated.
          refused.add(named);
        }
      }
      if (later) pauseSends(retry ?? backoff(setbacks + 1));
    },
  };

  /** @param {string} room */
  function takeQuestion(room) {
    const question = questions.get(room);
    questions.delete(room);
    return question;
  }

  /** Says which state has been applied: the server sends no more than this client can read. */
  function sayGot() {
    stateChars = 0;
    for (const room of rooms.values()) {
      const { id, rev, ready, stateEpoch } = room;
      if (!ready || !stateEpoch || rev === room.gotRev) continue;
      room.gotRev = rev;
      enqueue({ type: "got", room: id, rev });
    }
  }

  /** Sets lost bound keys again, where no later `set` waits; a lock only if it is free. @param {Room} room */
  function setBoundAgain({ id, bound, latest }) {
    for (const { what, rev } of bound.values()) {
      if (latest.has(what.key ?? "")) continue;
      const again = (/** @type {number | undefined} */ condition) => {
        handled(() => ask(id, { ...what, if: condition })).catch((error) => {
          // The server may not have noticed yet that the old connection has ended.
          if (condition === 0 && error.rev && error.rev === rev) again(rev);
          // Or has by now, or has begun anew.
          else if (error.code === "unknown" || (condition && error.rev === 0)) again(what.if && 0);
          else if (connection !== "closed") report(error);
        });
      };
      again(what.if && 0);
    }
    bound.clear();
  }

  // What goes out.

  /** Pauses, then sends what was refused first. Like TCP, halves what may be unacked. @param {number} ms */
  function pauseSends(ms) {
    if (!pause) {
      allowed = Math.max(1, Math.min(allowed, acked) / 2);
      acked = 0;
      setbacks++;
    }
    clearTimeout(pause);
    pause = setTimeout(() => {
      for (const id of refused) {
        const room = rooms.get(id);
        if (room) subscribe(room);
        else enqueue({ type: "leave", room: id });
      }
      refused.clear();
      pause = undefined;
      schedule();
    }, ms);
  }

  /** @param {string} id @param {string} [name] To join it with. */
  function addRoom(id, name) {
    const room = new Room(id);
    if (name !== undefined) room.asked.push(name);
    rooms.set(id, room);
    return room;
  }

  /** Where to go on in a room, and what of it to hear. @param {Room} [room] */
  function position(room) {
    const after = place(room?.epoch, room?.seq);
    const since = place(room?.stateEpoch, room?.rev);
    return on.state ? { after, state: true, every, since } : { after };
  }

  /** Joins a room under each name that waits for an answer, or listens. @param {Room} room */
  function subscribe(room, names = room.asked) {
    const { id } = room;
    for (const name of names) enqueue({ type: "join", room: id, name, session, ...position(room) });
    if (names.length === 0) enqueue({ type: "listen", room: id, ...position(room) });
  }

  /** @param {Room} room @param {ParleyError} [error] Why; by default `closed`. */
  function forget(room, error) {
    rooms.delete(room.id);
    for (const send of sends) if (send.room === room && !flying.has(send)) fail(send, error);
  }

  /** Sends. A change that waits gives way to a later one of its key. @param {string} id @param {Said} what */
  function ask(id, what) {
    const room = rooms.get(id);
    if (connection === "closed") throw closed(id);
    if (!room) throw new ParleyError("not_joined", `Not joined: ${id}`, id);
    const json = encode(what, id);
    const { key = "" } = what;
    const last = room.latest.get(key);
    if (last && !flying.has(last)) pump();
    const isReplaced = last && !flying.has(last) && (last.what.if ?? what.if) === undefined;
    if (!isReplaced && sends.size >= MAX_PENDING) {
      throw new ParleyError("busy", `${MAX_PENDING} messages wait already`, id);
    }
    const answer = isReplaced ? settle(last) : withResolvers();
    const send = { answer, room, what, json, id: 0, sentAt: 0, unsure: false };
    sends.add(send);
    if (key) room.latest.set(key, send);
    schedule();
    return answer.promise;
  }

  /** @param {Send} send */
  function settle(send) {
    const { room: { latest }, what: { key = "" } } = send;
    if (latest.get(key) === send) latest.delete(key);
    sends.delete(send);
    sent.delete(send.id);
    flying.delete(send);
    return send.answer;
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

  /** Turns waiting sends into lines, as far as the server's memory of ids and its rates allow. */
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
    const { room, json, what } = send;
    const isNewEpoch = send.epoch !== room.epoch;
    // A new epoch begins without state: the change is made anew.
    if (send.id && isNewEpoch && what.key !== undefined && what.if === undefined) {
      sent.delete(send.id);
      send.id = 0;
    }
    if (send.id && (isNewEpoch || isLate(send))) return fail(send);
    const line = `{"room":"${room.id}","id":"${send.id || lastId + 1}",${json.slice(1)}`;
    if (isTooBig(line)) return fail(send, tooBig(room.id));
    if (!send.id) Object.assign(send, { id: ++lastId, sentAt: now(), epoch: room.epoch });
    sent.set(send.id, send);
    flying.add(send);
    lines.push(line);
  }

  /** @param {string} line */
  function isTooBig(line) {
    return messageBytes > 0 && line.length * 3 > messageBytes &&
      encoder.encode(line).length > messageBytes;
  }

  /** @param {string} [room] */
  function tooBig(room) {
    return new ParleyError("too_big", `The server takes at most ${messageBytes} bytes`, room);
  }

  /** @param {Record<string, unknown>} object */
  function enqueue(object) {
    if (connection !== "open") return;
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
    const maxBytes = Math.min(MAX_FRAME_BYTES, messageBytes);
    let frame = "", bytes = 0;
    for (const line of lines.splice(0)) {
      const more = encoder.encode(line).length + 1;
      if (frame && bytes + more > maxBytes + 1) {
        socket.send(frame);
        frame = "";
        bytes = 0;
      }
      frame += frame ? `\n${line}` : line;
      bytes += more;
    }
    if (frame) socket.send(frame);
  }

  /** @param {string} id @param {{ before?: Cursor, after?: Cursor, limit?: number }} span */
  async function readPage(id, { before, after, limit }) {
    const [start, end] = [after, before].map((cursor) => place(cursor?.epoch, cursor?.seq));
    const query = { before: end, after: start, limit };
    const address = addressOf(`rooms/${checkRoom(id)}/messages`, query);
    const { response, body, error } = await get(address, await getToken());
    if (!response.ok || !body.messages) throw error;
    const { epoch } = body;
    const toMessage = (/** @type {Message} */ one) => ({ epoch, seq: one.seq, ...bodyOf(one) });
    return { ...body, messages: body.messages.map(toMessage) };
  }

  // What the page is told.

  /** @param {() => void} call A page's mistake in it must not cost the next message. */
  function notify(call) {
    try {
      call();
    } catch (error) {
      raise(error);
    }
  }

  /** @param {ParleyError} error */
  function report(error) {
    notify(() => on.onError?.(error));
  }

  /** @param {Connection} state */
  function become(state) {
    connection = state;
    notify(() => on.onConnection?.(state));
  }

  return {
    get connection() {
      return connection;
    },

    send: (message = /** @type {any} */ (""), { room = home } = {}) =>
      handled(() => ask(room, { type: "chat", message })),

    /** @param {string} key @param {Value | null} value */
    set: (key, value, { room = home, ...how } = {}) =>
      handled(() => ask(room, { type: "set", key, value, ...how })),

    state: (room = home) => rooms.get(room)?.values ?? new Map(),

    /** @param {string} key */
    entry: (key, room = home) => rooms.get(room)?.entries.get(key),

    /** @param {unknown} message */
    note(message, { room: id = home } = {}) {
      try {
        const object = { type: "note", room: id, message };
        if (isTooBig(encode(object, id))) throw tooBig(id);
        if (rooms.get(id)?.ready && !leaving && !pause) enqueue(object);
      } catch (error) {
        report(/** @type {ParleyError} */ (error));
      }
    },

    history: ({ room: id = home, ...span } = {}) =>
      handled(() =>
        readPage(id, span).catch((error) => {
          if (error instanceof ParleyError) throw error;
          throw new ParleyError("unavailable", `Cannot read: ${error}`, id);
        })
      ),

    /** @param {string} name */
    join(name, id = home) {
      const room = rooms.get(id);
      if (!room) return subscribe(addRoom(id, name));
      if (connection === "open") room.asked.push(name);
      else room.asked = [name];
      subscribe(room, [name]);
    },

    /** @param {string} id */
    listen(id) {
      if (!rooms.has(id)) subscribe(addRoom(id));
    },

    leave(id = home) {
      const room = rooms.get(id);
      if (!room) return;
      enqueue({ type: "leave", room: id });
      forget(room);
    },

    members: (id = home) =>
      handled(() => {
        if (connection === "closed") throw closed(id);
        const question = questions.get(id) ?? withResolvers();
        if (!questions.has(id)) enqueue({ type: "members", room: id });
        questions.set(id, question);
        return question.promise;
      }),

    async refreshToken() {
      const { signal } = attempt;
      const jwt = await getToken();
      if (isTooBig(`{"type":"token","token":"${jwt}"}`)) throw tooBig();
      if (!signal.aborted) enqueue({ type: "token", token: jwt });
    },

    close() {
      on = {};
      for (const send of sends) send.id = 0;
      end(closed());
    },
  };
}

/** What JSON makes null of, such as NaN, is refused: it would remove a key. @param {object} object @param {string} room */
function encode(object, room) {
  try {
    return JSON.stringify(object, (_key, value) => {
      if (typeof value === "number" && !Number.isFinite(value)) throw value;
      return value;
    });
  } catch (cause) {
    throw new ParleyError("bad_message", `Not JSON: ${cause}`, room);
  }
}

/** @param {number} failures */
const backoff = (failures) => Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** failures);

/** @param {Send} send */
const isLate = ({ id, sentAt }) => id > 0 && now() - sentAt > RESEND_MS;

/** @param {string} [part] A part of a path; what cannot be decoded names no room. */
function decode(part = "") {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A position as text, where there is one. @param {string} [epoch] @param {number} [number] */
const place = (epoch, number) => epoch && `${epoch}:${number}`;

/** What a message and a note have in common. @param {Note} note @returns {any} */
const bodyOf = ({ room, time, sender, message }) => ({ room, time, sender, message });

/** @param {string} id */
function checkRoom(id) {
  if (/^[\w.:-]{1,64}$/.test(id)) return id;
  const text = `Cannot use room ${id}: not 1 to 64 of A-Z a-z 0-9 . _ : -`;
  throw new ParleyError("bad_room", text, id);
}

/** @param {string} [room] */
const closed = (room) =>
  new ParleyError("closed", "The client is closed or has left the room", room);

/** `Promise.withResolvers`, which Node has since version 22. @returns {PromiseWithResolvers<any>} */
function withResolvers() {
  const made = /** @type {any} */ ({});
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

/** A call's promise, whose rejection may go unseen: by itself it would end a Deno process. */
function handled(/** @type {() => Promise<any>} */ call) {
  const promise = new Promise((resolve) => resolve(call()));
  promise.catch(() => {});
  return promise;
}
