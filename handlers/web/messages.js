// @ts-check
/// <reference lib="dom" />
/**
 * The list of messages on the chat page: drawn once a frame, own messages marked with their fate.
 *
 * @module
 */

/** @typedef {import("../client/client.js").Message} Message */

const MAX_ITEMS = 5_000;
const MAX_KEYS = 1_000;
const NEAR_PX = 80;
const LINK = /https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}'*_]/g;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const dayAndClock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** What becomes of an own message. */
export class OwnMark {
  /** @param {MessageList} list @param {HTMLElement} item @param {() => void} retry */
  constructor(list, item, retry) {
    this.list = list;
    this.item = item;
    this.retry = retry;
  }

  /** The server keeps it: its place in the list is the room's. @param {string} epoch @param {number} seq */
  acked(epoch, seq) {
    this.list.settle(this.item, `${epoch}:${seq}`);
  }

  /** It was not delivered, or nobody knows. @param {string} what */
  failed(what) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Retry";
    button.onclick = () => {
      this.item.remove();
      this.retry();
    };
    this.item.classList.add("failed");
    this.item.classList.remove("follows");
    const mark = markOf(this.item);
    mark.textContent = `${what} `;
    mark.append(button);
  }
}

/** The messages of a room, one below the other. */
export class MessageList {
  /** Items to be drawn with the next frame. @type {HTMLElement[]} */
  #due = [];
  /** Shown messages by their place, the newest last. @type {Map<string, HTMLElement>} */
  #byPlace = new Map();
  /** What stands for own messages that are acked and have not come yet, by their place. @type {Map<string, HTMLElement>} */
  #own = new Map();
  /** @type {HTMLElement | undefined} */
  #divider;
  #unread = 0;
  #isAtEnd = true;
  #top = 0;
  /** What is new, and the list itself, get their heights after they were added. */
  #heights = new ResizeObserver(() => this.#isAtEnd && this.#goToEnd());

  /** @param {HTMLElement} list @param {HTMLElement} newest @param {string} title */
  constructor(list, newest, title) {
    this.list = list;
    this.newest = newest;
    this.title = title;
    document.title = `${title} · Parley`;
    list.addEventListener("scroll", () => {
      // Only people scroll up: what grows does not take them from the end.
      if (list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX) this.#isAtEnd = true;
      else if (list.scrollTop < this.#top) this.#isAtEnd = false;
      this.#top = list.scrollTop;
      this.newest.hidden = this.#isAtEnd;
      if (this.#isAtEnd && !document.hidden) this.#showUnread(0);
    }, { passive: true });
    newest.onclick = () => {
      this.#goToEnd();
      list.focus();
    };
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.markRead();
      else if (this.#isAtEnd) this.#showUnread(0);
    });
  }

  /** @param {Message} message */
  addChat({ epoch, seq, time, sender, message }) {
    const place = `${epoch}:${seq}`;
    const item = makeChat(sender, message, time);
    if (this.#own.has(place)) showOwn(item);
    this.#own.get(place)?.remove();
    this.#own.delete(place);
    this.#byPlace.set(place, item);
    if (this.#byPlace.size > MAX_KEYS) {
      this.#byPlace.delete(this.#byPlace.keys().next().value ?? "");
    }
    if (document.hidden || !this.#isAtEnd) this.#addDivider();
    this.#add(item);
  }

  /** @param {"status" | "gap"} kind @param {string} text */
  addNote(kind, text) {
    const item = document.createElement("div");
    item.className = kind;
    item.textContent = text;
    this.#add(item);
  }

  /** An own message, below all others until the server keeps it. @param {string} sender @param {string} text @param {() => void} retry */
  addOwn(sender, text, retry) {
    const item = makeChat(sender, text, Date.now());
    item.classList.add("own", "pending");
    markOf(item).textContent = "Sending …";
    this.list.append(item);
    join(item);
    this.#isAtEnd = true;
    this.#follow();
    return new OwnMark(this, item, retry);
  }

  /** The message at a place is the own one that `pending` stood for. @param {HTMLElement} pending @param {string} place */
  settle(pending, place) {
    const item = this.#byPlace.get(place);
    showOwn(item ?? pending);
    if (item) pending.remove();
    else this.#own.set(place, pending);
  }

  /** Takes the divider of unread messages away. */
  markRead() {
    this.#divider?.remove();
    this.#divider = undefined;
    this.#showUnread(0);
  }

  #addDivider() {
    this.#showUnread(this.#unread + 1);
    if (this.#unread > 1) return;
    this.#divider?.remove();
    this.#divider = document.createElement("div");
    this.#divider.className = "unread";
    this.#divider.textContent = "New messages";
    this.#add(this.#divider);
  }

  /** @param {number} count */
  #showUnread(count) {
    this.#unread = count;
    this.newest.textContent = count > 0 ? `${count} new ↓` : "Newest messages ↓";
    document.title = `${count > 0 ? `(${count}) ` : ""}${this.title} · Parley`;
  }

  /** @param {HTMLElement} item */
  #add(item) {
    this.#due.push(item);
    if (this.#due.length > 1) return;
    // A hidden page gets no frames, but its list should still stand when it is shown.
    if (document.hidden) setTimeout(() => this.#draw());
    else requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const items = this.#due.splice(0);
    const pending = this.list.querySelector(".pending:not(.failed)");
    const part = document.createDocumentFragment();
    part.append(...items);
    this.list.insertBefore(part, pending);
    items.forEach(join);
    for (let i = this.list.childElementCount; i > MAX_ITEMS; i--) {
      this.list.firstElementChild?.remove();
    }
    this.#follow();
  }

  #follow() {
    this.#heights.disconnect();
    this.#heights.observe(this.list);
    if (this.list.lastElementChild) this.#heights.observe(this.list.lastElementChild);
  }

  #goToEnd() {
    this.list.scrollTop = this.list.scrollHeight;
  }
}

/** @param {string} sender @param {unknown} message @param {number} time */
function makeChat(sender, message, time) {
  const item = document.createElement("div");
  item.className = "chat";
  const about = document.createElement("div");
  about.className = "about";
  const name = document.createElement("span");
  name.className = "sender";
  name.textContent = sender;
  name.style.setProperty("--hue", `${hueOf(sender)}`);
  const when = document.createElement("time");
  const date = new Date(time);
  when.dateTime = date.toISOString();
  when.title = date.toLocaleString();
  const isToday = date.toDateString() === new Date().toDateString();
  when.textContent = (isToday ? clock : dayAndClock).format(date);
  const mark = document.createElement("span");
  mark.className = "mark";
  about.append(name, when, mark);
  const words = document.createElement("div");
  words.className = "words";
  words.dir = "auto";
  words.append(...linked(typeof message === "string" ? message : JSON.stringify(message)));
  item.append(about, words);
  item.dataset.head = `${when.textContent} ${sender}`;
  return item;
}

/** Of the same sender and minute as the message before, it needs no head. @param {HTMLElement} item */
function join(item) {
  const before = /** @type {HTMLElement | null} */ (item.previousElementSibling);
  const { head } = item.dataset;
  item.classList.toggle("follows", head !== undefined && head === before?.dataset.head);
}

/** A colour of a name's own, as an angle. @param {string} name */
function hueOf(name) {
  return [...name].reduce((hue, letter) => (hue * 97 + letter.charCodeAt(0)) % 360, 0);
}

/** @param {HTMLElement} item */
function markOf(item) {
  return /** @type {HTMLElement} */ (item.querySelector(".mark"));
}

/** @param {HTMLElement} item */
function showOwn(item) {
  const mark = markOf(item);
  item.classList.add("own");
  item.classList.remove("pending");
  mark.textContent = "✓";
  mark.title = "Delivered";
  mark.role = "img";
  mark.ariaLabel = "Delivered";
}

/** Text with its web addresses as links; all else stays text. @param {string} text */
function linked(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    if (!URL.canParse(match[0])) continue;
    const link = document.createElement("a");
    link.href = match[0];
    link.textContent = match[0];
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    parts.push(text.slice(end, match.index), link);
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}
