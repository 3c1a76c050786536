// @ts-check
/** Who comes and goes on the chat page, and who is here. @module */
import { colored, derivedHue, shown } from "./message.js";
import { element } from "./page.js";

const MAX_NAMES = 3;
const SEARCH_OVER = 20;
const TYPING_MS = 4_000;
const inWords = new Intl.ListFormat("en");
const collator = new Intl.Collator(undefined, { numeric: true });

/** One line for all who came, went and changed their names between two messages. */
export class StatusLine {
  item = element("div", { className: "status faint" });
  /** @type {Set<string>} */
  #joined = new Set();
  /** @type {Set<string>} */
  #left = new Set();
  /** New names, and the old ones. @type {Map<string, string>} */
  #renamed = new Map();

  /** @param {import("../client/client.js").Status} status */
  add({ event, name, was }) {
    if (was === undefined) {
      const [there, before] = event === "join"
        ? [this.#joined, this.#left]
        : [this.#left, this.#joined];
      // Somebody who comes back, or leaves at once, is no news.
      if (!before.delete(name)) there.add(name);
    } else if (this.#joined.delete(was)) {
      this.#joined.add(name);
    } else {
      const first = this.#renamed.get(was) ?? was;
      this.#renamed.delete(was);
      if (first !== name) this.#renamed.set(name, first);
    }
    const renamed = this.#renamed.size > MAX_NAMES
      ? [`${this.#renamed.size} people changed their names`]
      : [...this.#renamed].map(([now, before]) => `${shown(before)} is now ${shown(now)}`);
    this.item.textContent = [
      ...this.#joined.size ? [`${shorten([...this.#joined])} joined`] : [],
      ...renamed,
      ...this.#left.size ? [`${shorten([...this.#left])} left`] : [],
    ].join(" · ");
  }
}

/** Who is writing now; forgotten when nothing more is heard of it. */
export class Typing {
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /** @param {HTMLElement} line */
  constructor(line) {
    this.line = line;
  }

  /** @param {string} name @param {boolean} isTyping */
  set(name, isTyping) {
    clearTimeout(this.#timers.get(name));
    if (isTyping) this.#timers.set(name, setTimeout(() => this.set(name, false), TYPING_MS));
    else if (!this.#timers.delete(name)) return;
    const names = [...this.#timers.keys()];
    const text = `${shorten(names)} ${names.length > 1 ? "are" : "is"} writing …`;
    this.line.textContent = names.length > 0 ? text : "";
  }
}

/** @param {string[]} names */
function shorten(names) {
  const all = names.map(shown);
  return inWords.format(all.length > MAX_NAMES ? [all[0], `${all.length - 1} others`] : all);
}

/**
 * Lists who is here, as people sort; of several with one name each has a colour of its own.
 *
 * @param {HTMLElement} list @param {HTMLInputElement} search there for many
 * @param {import("../client/client.js").Members} members @param {string} ownName
 * @param {import("../client/client.js").Entry<number>[]} colors that people have chosen, the own one first
 */
export function showMembers(list, search, { members, count }, ownName, colors) {
  /** @type {Map<string, number>} */
  const known = new Map();
  const items = members.toSorted(collator.compare).map((name) => {
    const times = known.get(name) ?? 0;
    known.set(name, times + 1);
    const isOwn = name === ownName && times === 0;
    const item = element("li", {}, shown(name), ...isOwn ? [element("small", {}, " you")] : []);
    const chosen = colors.filter(({ sender }) => sender === name)[times];
    return colored(item, name, chosen?.value ?? derivedHue(name) + 137 * times);
  });
  if (count > members.length) items.push(element("li", {}, `and ${count - members.length} more`));
  search.hidden = members.length <= SEARCH_OVER;
  const filter = () => {
    const wanted = search.value.toLowerCase();
    for (const item of items) item.hidden = !item.textContent?.toLowerCase().includes(wanted);
  };
  search.oninput = filter;
  filter();
  list.replaceChildren(...items);
}
