// @ts-check
/// <reference lib="dom" />
/**
 * The list of messages on the chat page: drawn once a frame, own messages marked with their fate.
 *
 * @module
 */
import { element, group, makeMessage, showDelivered, showPending } from "./message.js";
import { StatusLine } from "./people.js";

/** @typedef {import("../client/client.js").Cursor} Cursor */
/** @typedef {import("../client/client.js").Message} Message */

const MAX_ITEMS = 5_000;
const MAX_KEYS = 1_000;
const NEAR_PX = 80;
const DAY_MS = 86_400_000;
const SENDING = "Sending …";
const WAITING = "Waits for the connection";
const dayName = new Intl.DateTimeFormat(undefined, {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
});

/** The messages of a room, one below the other. */
export class MessageList {
  /** Items to be drawn with the next frame. @type {HTMLElement[]} */
  #queue = [];
  /** Shown messages by their position, the newest last. @type {Map<string, HTMLElement>} */
  #byPosition = new Map();
  /** What stands for own messages that are acked and have not come yet, by position. @type {Map<string, HTMLElement>} */
  #own = new Map();
  /** The line of who came and went, until the next message. @type {StatusLine | undefined} */
  #statusLine;
  /** @type {HTMLElement | undefined} */
  #divider;
  #day = new Date().toDateString();
  /** The position of the first message. @type {Cursor | undefined} */
  #oldest;
  #isReading = false;
  #unread = 0;
  #isOnline = true;
  #isAtEnd = true;
  #top = 0;
  /** What is new, and the list itself, get their heights after they were added. */
  #heights = new ResizeObserver(() => this.#isAtEnd && this.#goToEnd());

  /**
   * @param {HTMLElement} list @param {HTMLElement} newest @param {string} title
   * @param {(before: Cursor) => Promise<Message[]>} readOlder
   * @param {Set<string>} ownPositions Where own messages stand; those of an earlier visit at first.
   */
  constructor(list, newest, title, readOlder, ownPositions) {
    this.list = list;
    this.newest = newest;
    this.title = title;
    this.readOlder = readOlder;
    this.ownPositions = ownPositions;
    document.title = `${title} · Parley`;
    list.addEventListener("scroll", () => {
      // Only people scroll up: what grows does not take them from the end.
      if (list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX) this.#isAtEnd = true;
      else if (list.scrollTop < this.#top) this.#isAtEnd = false;
      this.#top = list.scrollTop;
      this.newest.hidden = this.#isAtEnd;
      if (list.scrollTop < NEAR_PX) this.#showOlder();
      if (this.#isAtEnd && !document.hidden) this.#showUnread(0);
    }, { passive: true });
    // With a pointer the focus stays where it is, and with it a phone's keyboard.
    newest.onpointerdown = newest.onmousedown = (event) => event.preventDefault();
    newest.onclick = ({ detail }) => {
      this.#goToEnd();
      if (detail === 0) list.focus();
    };
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.markRead();
      else if (this.#isAtEnd) this.#showUnread(0);
    });
  }

  /** @param {Message} message */
  addMessage(message) {
    const { epoch, seq, time } = message;
    this.#oldest ??= { epoch, seq };
    const position = `${epoch}:${seq}`;
    const item = this.#make(message);
    this.#own.get(position)?.remove();
    this.#own.delete(position);
    this.#byPosition.set(position, item);
    if (this.#byPosition.size > MAX_KEYS) {
      this.#byPosition.delete(this.#byPosition.keys().next().value ?? "");
    }
    this.#addDay(new Date(time));
    if (document.hidden || !this.#isAtEnd) this.#addDivider();
    this.#statusLine = undefined;
    this.#add(item);
  }

  /** @param {import("../client/client.js").Status} status */
  addStatus(status) {
    if (!this.#statusLine) this.#add((this.#statusLine = new StatusLine()).item);
    this.#statusLine.add(status);
  }

  /** Says that something is missing, or not as it was asked for. @param {string} text */
  addNotice(text) {
    this.#statusLine = undefined;
    this.#add(element("div", "gap", text));
  }

  /** An own message, below all others until the server keeps it. @param {string} sender @param {string} text */
  addOwn(sender, text) {
    const item = makeMessage(sender, text, Date.now());
    showPending(item, this.#isOnline ? SENDING : WAITING);
    this.list.append(item);
    group(item);
    this.#isAtEnd = true;
    this.#follow();
    return item;
  }

  /** The server keeps the message that `pending` stood for. @param {HTMLElement} pending @param {string} position */
  settle(pending, position) {
    const item = this.#byPosition.get(position);
    this.ownPositions.add(position);
    showDelivered(item ?? pending);
    if (!item) return this.#own.set(position, pending);
    pending.remove();
    group(item);
    const next = /** @type {HTMLElement | null} */ (item.nextElementSibling);
    if (next) group(next);
  }

  /** Marks what is on its way: with a connection, or without. @param {boolean} isOnline */
  setOnline(isOnline) {
    this.#isOnline = isOnline;
    /** @type {NodeListOf<HTMLElement>} */
    const pending = this.list.querySelectorAll(".pending:not(.failed)");
    for (const item of pending) showPending(item, isOnline ? SENDING : WAITING);
  }

  /** Takes the divider of unread messages away. */
  markRead() {
    this.#removeDivider();
    this.#showUnread(0);
  }

  /** @param {Message} message */
  #make({ epoch, seq, time, sender, message }) {
    const item = makeMessage(sender, message, time);
    if (this.ownPositions.has(`${epoch}:${seq}`)) showDelivered(item);
    return item;
  }

  /** Puts what was said before all that is shown above it; what people look at stays where it is. */
  async #showOlder() {
    const { list } = this;
    if (!this.#oldest || this.#isReading || list.childElementCount >= MAX_ITEMS) return;
    this.#isReading = true;
    const messages = await this.readOlder(this.#oldest).catch(() => []);
    // Where nothing is older, nobody asks again.
    if (messages.length === 0) return;
    this.#isReading = false;
    const [{ epoch, seq }] = messages;
    this.#oldest = { epoch, seq };
    const fromEnd = list.scrollHeight - list.scrollTop;
    const items = messages.map((message) => this.#make(message));
    const next = /** @type {HTMLElement | null} */ (list.firstElementChild);
    list.prepend(...items);
    for (const item of next ? [...items, next] : items) group(item);
    this.#drawDays();
    list.scrollTop = this.#top = list.scrollHeight - fromEnd;
  }

  #drawDays() {
    for (const line of this.list.querySelectorAll(".day")) line.remove();
    let day = new Date().toDateString();
    /** @type {NodeListOf<HTMLElement>} */
    const items = this.list.querySelectorAll(".chat:not(.pending)");
    for (const item of items) {
      const date = new Date(Number(item.dataset.time));
      if (date.toDateString() !== day) item.before(this.#dayLine(date));
      day = date.toDateString();
    }
  }

  /** @param {Date} date */
  #addDay(date) {
    if (date.toDateString() === this.#day) return;
    this.#day = date.toDateString();
    this.#add(this.#dayLine(date));
  }

  /** @param {Date} date */
  #dayLine(date) {
    const noon = (/** @type {Date} */ at) => new Date(at).setHours(12, 0, 0, 0);
    const age = Math.round((noon(new Date()) - noon(date)) / DAY_MS);
    return element("div", "day", ["Today", "Yesterday"][age] ?? dayName.format(date));
  }

  #addDivider() {
    this.#showUnread(this.#unread + 1);
    if (this.#unread > 1) return;
    this.#removeDivider();
    this.#divider = element("div", "unread", "New messages");
    this.#add(this.#divider);
  }

  #removeDivider() {
    this.#divider?.remove();
    this.#divider = undefined;
    // What moved up by that, nobody scrolled.
    this.#top = this.list.scrollTop;
  }

  /** @param {number} count */
  #showUnread(count) {
    this.#unread = count;
    this.newest.textContent = count > 0 ? `${count} new ↓` : "Newest messages ↓";
    document.title = `${count > 0 ? `(${count}) ` : ""}${this.title} · Parley`;
  }

  /** @param {HTMLElement} item */
  #add(item) {
    this.#queue.push(item);
    if (this.#queue.length > 1) return;
    // A hidden page gets no frames, but its list should still stand when it is shown.
    if (document.hidden) setTimeout(() => this.#draw());
    else requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const items = this.#queue.splice(0);
    /** @type {HTMLElement | null} */
    const pending = this.list.querySelector(".pending:not(.failed)");
    const part = document.createDocumentFragment();
    part.append(...items);
    this.list.insertBefore(part, pending);
    for (const item of [...items, ...pending ? [pending] : []]) group(item);
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
