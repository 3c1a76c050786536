// @ts-check
/** The list of messages on the chat page: drawn once a frame, own messages marked with their fate. @module */
import { group, makeMessage, showDelivered, showPending } from "./message.js";
import { element } from "./page.js";
import { StatusLine } from "./people.js";

/** @typedef {import("../client/client.js").Cursor} Cursor */
/** @typedef {import("../client/client.js").Message} Message */

const MAX_ITEMS = 5_000;
const MAX_KEYS = 1_000;
const NEAR_PX = 80;
const DAY_MS = 86_400_000;
const dayName = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

/** The messages of a room, one below the other. */
export class MessageList {
  /** Items to be drawn with the next frame. @type {HTMLElement[]} */
  #queue = [];
  /** By position, with own messages that are acked and have not come back yet. @type {Map<string, HTMLElement>} */
  #byPosition = new Map();
  /** The line of who came and went, until the next message. @type {StatusLine | undefined} */
  #statusLine;
  /** @type {HTMLElement | undefined} */
  #divider;
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
      // Only people scroll up: what grows does not move them from the end.
      if (list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX) this.#isAtEnd = true;
      else if (list.scrollTop < this.#top) this.#isAtEnd = false;
      this.#top = list.scrollTop;
      this.newest.hidden = this.#isAtEnd;
      if (list.scrollTop < NEAR_PX) this.#showOlder();
      if (this.#isAtEnd && !document.hidden) this.#showUnread(0);
    }, { passive: true });
    // A pointer leaves the focus where it is, and with it a phone's keyboard.
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
    const { epoch, seq } = message;
    this.#oldest ??= { epoch, seq };
    const position = `${epoch}:${seq}`;
    const item = this.#make(message);
    this.#byPosition.get(position)?.remove();
    this.#byPosition.set(position, item);
    if (this.#byPosition.size > MAX_KEYS) {
      this.#byPosition.delete(this.#byPosition.keys().next().value ?? "");
    }
    if (document.hidden || !this.#isAtEnd) this.#addDivider();
    this.#statusLine = undefined;
    this.#add(item);
  }

  /** @param {import("../client/client.js").Status} status */
  addStatus(status) {
    if (!this.#statusLine) this.#add((this.#statusLine = new StatusLine()).item);
    this.#statusLine.add(status);
  }

  /** Adds a remark, such as that messages may be missing. @param {string} text */
  addNotice(text) {
    this.#statusLine = undefined;
    this.#add(element("div", { className: "gap faint" }, text));
  }

  /** An own message, below all others until the server keeps it. @param {string} sender @param {string} text */
  addOwn(sender, text) {
    const item = makeMessage(sender, text, Date.now());
    showPending(item, this.#isOnline);
    this.list.append(item);
    group(item);
    this.#isAtEnd = true;
    this.#follow();
    return item;
  }

  /** The server keeps the message that `pending` stood for. @param {HTMLElement} pending @param {string} position */
  settle(pending, position) {
    const item = this.#byPosition.get(position) ?? pending;
    this.#byPosition.set(position, item);
    this.ownPositions.add(position);
    showDelivered(item);
    if (item === pending) return;
    pending.remove();
    for (const each of [item, item.nextElementSibling]) each && group(each);
  }

  /** Marks what is on its way: with a connection, or without. @param {boolean} isOnline */
  setOnline(isOnline) {
    this.#isOnline = isOnline;
    /** @type {NodeListOf<HTMLElement>} */
    const pending = this.list.querySelectorAll(".pending:not(.failed)");
    for (const item of pending) showPending(item, isOnline);
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

  /** Shows older messages above the others; what people look at stays where it is. */
  async #showOlder() {
    const { list } = this;
    if (!this.#oldest || this.#isReading || list.childElementCount >= MAX_ITEMS) return;
    this.#isReading = true;
    const messages = await this.readOlder(this.#oldest).catch(() => []);
    // Nothing is older: this never asks again.
    if (messages.length === 0) return;
    this.#isReading = false;
    const [{ epoch, seq }] = messages;
    this.#oldest = { epoch, seq };
    const fromEnd = list.scrollHeight - list.scrollTop;
    const items = messages.map((message) => this.#make(message));
    const next = list.querySelector(".chat");
    list.prepend(...items);
    this.#arrange(next ? [...items, next] : items);
    list.scrollTop = this.#top = list.scrollHeight - fromEnd;
  }

  /** Gives messages a line where a day begins, and a head where they need one. @param {Element[]} items */
  #arrange(items) {
    for (const item of items) {
      if (item.matches(".chat")) this.#drawDay(item);
      group(item);
    }
  }

  /** @param {Element} item */
  #drawDay(item) {
    let before = item.previousElementSibling;
    while (before && !before.matches(".chat:not(.pending)")) {
      const line = before;
      before = before.previousElementSibling;
      if (line.matches(".day")) line.remove();
    }
    const date = dateOf(item);
    if (date.toDateString() === dateOf(before).toDateString()) return;
    const noon = (/** @type {Date} */ at) => new Date(at).setHours(12, 0, 0, 0);
    const age = Math.round((noon(new Date()) - noon(date)) / DAY_MS);
    const text = ["Today", "Yesterday"][age] ?? dayName.format(date);
    item.before(element("div", { className: "day" }, text));
  }

  #addDivider() {
    this.#showUnread(this.#unread + 1);
    if (this.#unread > 1) return;
    this.#removeDivider();
    this.#divider = element("div", { className: "unread" }, "New messages");
    this.#add(this.#divider);
  }

  #removeDivider() {
    this.#divider?.remove();
    this.#divider = undefined;
    // The list moved up by that: nobody scrolled.
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
    const pending = this.list.querySelector(".pending:not(.failed)");
    if (pending) pending.before(...items);
    else this.list.append(...items);
    this.#arrange(items);
    if (pending) group(pending);
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

/** When a message was sent; now where there is none. @param {Element | null} item */
function dateOf(item) {
  return item instanceof HTMLElement ? new Date(Number(item.dataset.time)) : new Date();
}
