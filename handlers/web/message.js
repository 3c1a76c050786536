// @ts-check
/** One message on the chat page: what it looks like, and the fate of an own one. @module */
import { element } from "./page.js";

const CODE_OR_LINK = /`{3}\n?([^]+?)`{3}|`([^`\n]+)`|https?:\/\/[^\s<>"`]+[^\s<>".,;:!?)\]}'*_`]/g;
/** Characters that turn the direction of what follows: they could make a link look like another one. */
const BIDI_CONTROLS = /[\u202a-\u202e\u2066-\u2069]/g;
/** What nobody sees in a name, but for what an emoji is made of and single blanks inside. */
const HIDDEN =
  /(?<![\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])[\p{Cf}\p{Default_Ignorable_Code_Point}]|(?! )\p{Z}|^ | $|\u2800/gu;
const ONE_BIG = /^\p{RGI_Emoji}{1,3}$/v;
const GROUP_MS = 300_000;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

/** @param {string} sender @param {unknown} message @param {number} time in Unix ms */
export function makeMessage(sender, message, time) {
  const date = new Date(time);
  const [dateTime, title] = [date.toISOString(), date.toLocaleString()];
  const text = typeof message === "string" ? message : JSON.stringify(message);
  const className = `words${ONE_BIG.test(text) ? " big" : ""}`;
  const about = element(
    "div",
    { className: "about faint" },
    colored(element("span", { className: "sender" }, shown(sender)), sender),
    element("time", { dateTime, title }, clock.format(date)),
    element("span", { className: "mark" }),
  );
  const words = element("div", { className, dir: "auto" }, ...format(text));
  const item = element("div", { className: "chat" }, about, words);
  Object.assign(item.dataset, { sender, time });
  return item;
}

/** Hides the head of a message soon after one of the same sender. @param {Element} element */
export function group(element) {
  const item = /** @type {HTMLElement} */ (element);
  const before = /** @type {HTMLElement | null} */ (item.previousElementSibling);
  const follows = before?.dataset.sender !== undefined &&
    before.dataset.sender === item.dataset.sender &&
    before.classList.contains("own") === item.classList.contains("own") &&
    Number(item.dataset.time) - Number(before.dataset.time) < GROUP_MS;
  item.classList.toggle("follows", follows && !item.classList.contains("failed"));
}

/** @param {HTMLElement} item @param {boolean} isOnline */
export function showPending(item, isOnline) {
  item.classList.add("own", "pending");
  markOf(item).textContent = isOnline ? "Sending …" : "Waits for the connection";
}

/** @param {HTMLElement} item */
export function showDelivered(item) {
  item.classList.add("own");
  item.classList.remove("pending");
  const [title, textContent] = ["Delivered", "✓"];
  Object.assign(markOf(item), { textContent, title, role: "img", ariaLabel: title });
}

/** @param {HTMLElement} item @param {string} why @param {() => void} retry */
export function showFailed(item, why, retry) {
  const onclick = () => {
    item.remove();
    retry();
  };
  item.classList.add("failed");
  item.classList.remove("follows");
  const button = element("button", { type: "button", className: "light", onclick }, "Retry");
  markOf(item).replaceChildren(`${why} `, button);
}

/** A name in which nothing is hidden: no two that differ look the same. @param {string} name */
export function shown(name) {
  return name.replace(HIDDEN, (letter) => `\\x${letter.codePointAt(0)?.toString(16)}`);
}

/**
 * Gives the element of a name its letter and colour.
 *
 * @template {HTMLElement} E @param {E} item @param {string} name @param {string | number} hue
 */
export function colored(item, name, hue = `var(${hueOf(name)}, ${derivedHue(name)})`) {
  item.style.setProperty("--hue", `${hue}`);
  [item.dataset.letter] = shown(name);
  return item;
}

/** Gives a name the colour that its bearer has chosen, wherever it stands. @param {string} name @param {number} hue */
export function setHue(name, hue) {
  document.documentElement.style.setProperty(hueOf(name), `${hue}`);
}

/** The colour of who has chosen none. @param {string} name */
export function derivedHue(name) {
  return [...name].reduce((hue, letter) => (hue * 97 + letter.charCodeAt(0) * 137) % 360, 0);
}

/** @type {Map<string, string>} */
const hues = new Map();
/** The style property that has a name's chosen colour. @param {string} name */
function hueOf(name) {
  if (!hues.has(name)) hues.set(name, `--hue-${hues.size}`);
  return hues.get(name) ?? "";
}

/** @param {HTMLElement} item */
function markOf(item) {
  return /** @type {HTMLElement} */ (item.querySelector(".mark"));
}

/** Text with code in backticks and web addresses as links; all else stays text. @param {string} text */
function format(text) {
  const readable = text.replace(BIDI_CONTROLS, "");
  const parts = [];
  let end = 0;
  for (const { 0: all, 1: block, 2: inline, index } of readable.matchAll(CODE_OR_LINK)) {
    const code = block ?? inline;
    if (code === undefined && !URL.canParse(all)) continue;
    const link = { href: all, target: "_blank", rel: "noopener noreferrer nofollow" };
    const className = block === undefined ? "" : "block";
    const made = code === undefined
      ? element("a", link, all)
      : element("code", { className }, code);
    parts.push(readable.slice(end, index), made);
    end = index + all.length;
  }
  return [...parts, readable.slice(end)];
}
