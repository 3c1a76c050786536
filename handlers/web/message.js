// @ts-check
/// <reference lib="dom" />
/**
 * One message on the chat page: what it looks like, and the fate of an own one.
 *
 * @module
 */

const CODE_OR_LINK = /`{3}\n?([^]+?)`{3}|`([^`\n]+)`|https?:\/\/[^\s<>"`]+[^\s<>".,;:!?)\]}'*_`]/g;
/** Characters that turn the direction of what follows: they could make a link look like another one. */
const BIDI_CONTROLS = /[\u202a-\u202e\u2066-\u2069]/g;
const ONE_BIG = /^\p{RGI_Emoji}{1,3}$/v;
const GROUP_MS = 300_000;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

/** @param {string} tag @param {string} [className] @param {string} [text] */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** @param {string} sender @param {unknown} message @param {number} time in Unix ms */
export function makeMessage(sender, message, time) {
  const item = element("div", "chat");
  item.dataset.sender = sender;
  item.dataset.time = `${time}`;
  const name = element("span", "sender", sender);
  name.style.setProperty("--hue", `${hueOf(sender)}`);
  const when = /** @type {HTMLTimeElement} */ (element("time"));
  const date = new Date(time);
  when.dateTime = date.toISOString();
  when.title = date.toLocaleString();
  when.textContent = clock.format(date);
  const about = element("div", "about");
  about.append(name, when, element("span", "mark"));
  const text = typeof message === "string" ? message : JSON.stringify(message);
  const words = element("div", `words${ONE_BIG.test(text) ? " big" : ""}`);
  words.dir = "auto";
  words.append(...format(text.replace(BIDI_CONTROLS, "")));
  item.append(about, words);
  return item;
}

/** Shortly behind one of the same sender, a message needs no head. @param {HTMLElement} item */
export function group(item) {
  const before = /** @type {HTMLElement | null} */ (item.previousElementSibling);
  const follows = before?.dataset.sender !== undefined &&
    before.dataset.sender === item.dataset.sender &&
    before.classList.contains("own") === item.classList.contains("own") &&
    Number(item.dataset.time) - Number(before.dataset.time) < GROUP_MS;
  item.classList.toggle("follows", follows && !item.classList.contains("failed"));
}

/** @param {HTMLElement} item @param {string} text */
export function showPending(item, text) {
  item.classList.add("own", "pending");
  markOf(item).textContent = text;
}

/** @param {HTMLElement} item */
export function showDelivered(item) {
  const mark = markOf(item);
  item.classList.add("own");
  item.classList.remove("pending");
  mark.textContent = "✓";
  mark.title = "Delivered";
  mark.role = "img";
  mark.ariaLabel = "Delivered";
}

/** @param {HTMLElement} item @param {string} why @param {() => void} retry */
export function showFailed(item, why, retry) {
  const button = /** @type {HTMLButtonElement} */ (element("button", "", "Retry"));
  button.type = "button";
  button.onclick = () => {
    item.remove();
    retry();
  };
  item.classList.add("failed");
  item.classList.remove("follows");
  markOf(item).replaceChildren(`${why} `, button);
}

/** A colour of a name's own, as an angle. @param {string} name */
export function hueOf(name) {
  return [...name].reduce((hue, letter) => (hue * 97 + letter.charCodeAt(0)) % 360, 0);
}

/** @param {HTMLElement} item */
function markOf(item) {
  return /** @type {HTMLElement} */ (item.querySelector(".mark"));
}

/** Text with code in backticks and web addresses as links; all else stays text. @param {string} text */
function format(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(CODE_OR_LINK)) {
    const [all, block, inline] = match;
    const code = block ?? inline;
    if (code === undefined && !URL.canParse(all)) continue;
    parts.push(
      text.slice(end, match.index),
      code === undefined ? link(all) : element("code", "", code),
    );
    end = match.index + all.length;
  }
  return [...parts, text.slice(end)];
}

/** @param {string} url */
function link(url) {
  const made = /** @type {HTMLAnchorElement} */ (element("a", "", url));
  made.href = url;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  return made;
}
