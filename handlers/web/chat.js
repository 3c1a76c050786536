// @ts-check
/// <reference lib="dom" />
/**
 * The chat page: a room on `client.js`.
 *
 * @module
 */
// @ts-types="../client/client.d.ts"
import { connect } from "./client.js";
import { element, showFailed } from "./message.js";
import { MessageList } from "./messages.js";
import { showMembers, Typing } from "./people.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

const HISTORY = 50;
const MAX_OWN = 500;
const MEMBERS_MS = 500;
const PATIENCE_MS = 1_000;
const SAID_MS = 2_000;
/** How often others are told that somebody is writing. */
const TYPING_MS = 2_500;
const READ_ONLY = "You may read this room, not write in it.";
/** What a final refusal means to people, by its code. */
const FINAL_TEXTS = {
  no_token:
    "This room needs a token, and this page's address has none. Ask for a link to it that ends in #token=…",
  bad_token: "The token in this page's address is not valid. Ask for a new link.",
  token_expired: "The token in this page's address has expired. Ask for a new link.",
  not_allowed: "You are not allowed in this room any more.",
  rate_limited: "You were disconnected for writing too much at once. Reload the page to go on.",
};

const asked = new URLSearchParams(location.search).get("room") || "lobby";
field("where").value = asked;
const room = field("where").validity.valid ? asked : "lobby";
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const title = `#${room}`;
const ownPositions = new Set(JSON.parse(stored("sessionStorage", `own.${room}`) ?? "[]"));
const typing = new Typing(byId("typing"));
const readOlder = async (/** @type {import("../client/client.js").Cursor} */ before) =>
  (await client.history({ before, limit: HISTORY })).messages;
const list = new MessageList(byId("messages"), byId("newest"), title, readOlder, ownPositions);
if (room !== asked) list.addNotice(`“${asked}” cannot be a room's name. This is ${title}.`);

const client = connect(".", {
  room,
  token,
  history: HISTORY,
  onMessage: (message) => {
    typing.set(message.sender, false);
    list.addMessage(message);
    notify(message);
  },
  onNote: ({ sender, message }) => {
    const isTyping = /** @type {{ typing?: unknown } | null} */ (message)?.typing === true;
    if (isTyping && sender !== ownName) typing.set(sender, true);
  },
  onStatus: (status) => {
    list.addStatus(status);
    showCount(status.members);
  },
  onWelcome: ({ members }) => {
    byId("people").hidden = false;
    showCount(members);
    // What was said before comes right behind.
    setTimeout(() => byId("messages").dataset.empty = "No messages yet.");
  },
  onGap: () => list.addNotice("Some messages may be missing here."),
  onConnection: showState,
  onError: ({ code, message }) => {
    if (client.connection === "closed") {
      const text = FINAL_TEXTS[/** @type {keyof typeof FINAL_TEXTS} */ (code)];
      showBanner(text ?? `Disconnected: ${message} Reload the page to try again.`, true);
      byId("messages").dataset.empty = "";
      for (const id of ["join", "say"]) byId(id).hidden = true;
    } else if (code === "bad_name") askName(message);
    else if (code === "forbidden") showReadOnly();
    else showBanner(message, true);
  },
});

/** @param {string} state */
function showState(state) {
  list.setOnline(state === "open");
  if (state === "open") showBanner("");
  else if (state === "reconnecting") {
    showBanner("Connection lost, trying again. What you write is sent when it is back.");
  }
}

/** @param {string} text @param {boolean} [isBad] */
function showBanner(text, isBad = false) {
  byId("banner").className = isBad ? "bad" : "";
  byId("banner").textContent = text;
}

/** @param {number} members */
function showCount(members) {
  byId("count").textContent = String(members);
  refreshMembers(MEMBERS_MS);
}

let isRefreshing = false;
/** Asks who is here, if somebody looks: once for many who come within `ms`. @param {number} ms */
function refreshMembers(ms) {
  if (isRefreshing || !byId("members").matches(":popover-open")) return;
  isRefreshing = true;
  setTimeout(async () => {
    isRefreshing = false;
    const members = await client.members().catch(() => ({ members: [], count: 0 }));
    showMembers(byId("names"), field("search"), members, ownName);
  }, ms);
}

/** Lists the rooms that somebody is in, as links. */
async function showRooms() {
  const headers = token ? { authorization: `Bearer ${token}` } : undefined;
  const response = await fetch("rooms", { headers }).catch(() => undefined);
  const { rooms } = response?.ok ? await response.json() : { rooms: [] };
  byId("list").replaceChildren(
    ...rooms.map((/** @type {{ room: string, members: number }} */ one) => {
      const link = /** @type {HTMLAnchorElement} */ (element("a", "", `#${one.room}`));
      link.href = addressOf(one.room);
      link.append(element("small", "", `${one.members} here`));
      const item = element("li");
      item.append(link);
      return item;
    }),
  );
}

/** @param {string} id */
function addressOf(id) {
  return `?${new URLSearchParams({ room: id })}${location.hash}`;
}

/** The name in the room, as far as the server has not refused it. */
let ownName = "";

/** @param {string} [refusal] */
function askName(refusal = "") {
  byId("join").hidden = false;
  byId("say").hidden = true;
  byId("cancel").hidden = !ownName || refusal !== "";
  byId("enter").textContent = ownName ? "Change name" : "Join";
  if (refusal) ownName = "";
  field("name").select();
  field("name").setCustomValidity(refusal);
  if (refusal) field("name").reportValidity();
}

function startTalking() {
  byId("join").hidden = true;
  byId("say").hidden = false;
  byId("rename").textContent = ownName;
  byId("rename").setAttribute("aria-label", `${ownName}: change name`);
  field("rename").disabled = fixedName !== undefined;
  field("text").focus();
}

function showReadOnly() {
  for (const id of ["join", "say"]) byId(id).hidden = true;
  byId("mute").hidden = false;
  byId("mute").textContent = READ_ONLY;
}

/** @param {string} text */
async function say(text) {
  const item = list.addOwn(ownName, text);
  try {
    const { epoch, seq } = await client.send(text);
    list.settle(item, `${epoch}:${seq}`);
    stored("sessionStorage", `own.${room}`, JSON.stringify([...ownPositions].slice(-MAX_OWN)));
  } catch (error) {
    const { code, message } = /** @type {import("../client/client.js").ParleyError} */ (error);
    const reason = client.connection === "closed" ? "disconnected" : message;
    showFailed(item, code === "unknown" ? "Perhaps not delivered" : `Not sent: ${reason}`, () => {
      say(text);
      field("text").focus();
    });
    if (code === "forbidden") showReadOnly();
  }
}

/** Shows what comes while nobody looks, where people have asked for it. @param {import("../client/client.js").Message} message */
function notify({ sender, message }) {
  if (!document.hidden || !field("notify").checked) return;
  try {
    new Notification(`${sender} in ${title}`, { body: String(message), tag: room });
  } catch {
    // Some phones show none of a page.
  }
}

/** The name that a token fixes; the server is who checks it. */
function nameInToken() {
  try {
    const claims = token?.split(".")[1].replaceAll("-", "+").replaceAll("_", "/") ?? "";
    const bytes = Uint8Array.from(atob(claims), (letter) => letter.charCodeAt(0));
    const { name, sub } = JSON.parse(new TextDecoder().decode(bytes));
    return name ?? sub;
  } catch {
    // No token, or none that can be read: people choose their name.
  }
}

/**
 * What an earlier visit, or this tab, kept, where the browser allows it.
 *
 * @param {"localStorage" | "sessionStorage"} where @param {string} key
 * @param {string} [value] to keep
 */
function stored(where, key, value) {
  try {
    if (value !== undefined) globalThis[where].setItem(`parley.${key}`, value);
    return globalThis[where].getItem(`parley.${key}`);
  } catch {
    return null;
  }
}

byId("room").textContent = byId("room").title = title;
field("where").value = "";
field("text").value = stored("sessionStorage", `draft.${room}`) ?? "";
const fixedName = nameInToken();
field("name").value = fixedName ?? stored("localStorage", "name") ?? "";
field("name").readOnly = fixedName !== undefined;
field("name").oninput = () => field("name").setCustomValidity("");
let typedAt = -Infinity;
field("text").oninput = () => {
  stored("sessionStorage", `draft.${room}`, field("text").value);
  if (performance.now() - typedAt < TYPING_MS) return;
  typedAt = performance.now();
  client.note({ typing: true });
};
setTimeout(() => client.connection === "connecting" && showBanner("Connecting …"), PATIENCE_MS);
addEventListener("hashchange", () => location.reload());

byId("join").onsubmit = (event) => {
  event.preventDefault();
  const name = field("name").value.trim();
  if (!name) return askName("Please write a name.");
  stored("localStorage", "name", name);
  stored("sessionStorage", "name", name);
  if (name !== ownName) client.join(name);
  ownName = name;
  startTalking();
};

byId("join").onkeydown = ({ key }) => {
  if (key === "Escape" && ownName) startTalking();
};

byId("cancel").onclick = startTalking;
byId("rename").onclick = () => askName();
byId("members").ontoggle = () => refreshMembers(0);
byId("rooms").ontoggle = () => byId("rooms").matches(":popover-open") && showRooms();

byId("go").onsubmit = (event) => {
  event.preventDefault();
  location.href = addressOf(field("where").value);
};

field("notify").onchange = async () => {
  const answer = await globalThis.Notification?.requestPermission();
  field("notify").checked &&= answer === "granted";
};

byId("say").onsubmit = (event) => {
  event.preventDefault();
  const text = field("text").value;
  if (text.trim() === "") return;
  field("text").value = "";
  typedAt = -Infinity;
  stored("sessionStorage", `draft.${room}`, "");
  list.markRead();
  say(text);
};

field("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  /** @type {HTMLFormElement} */ (byId("say")).requestSubmit();
};

byId("share").onclick = async () => {
  const url = new URL(`?${new URLSearchParams({ room })}`, location.href);
  url.hash = "";
  try {
    await navigator.clipboard.writeText(url.href);
    byId("said").textContent = "Link copied";
    byId("share").textContent = "Copied";
  } catch {
    // Without permission the link can still be seen and copied by hand.
    prompt("Link to this room", url.href);
  }
  setTimeout(() => {
    byId("said").textContent = "";
    byId("share").textContent = "Share";
  }, SAID_MS);
};

// Who has joined in this tab stays so over a reload and a change of room.
const lastName = stored("sessionStorage", "name");
if (room.startsWith("_")) showReadOnly();
else if (lastName) {
  field("name").value = fixedName ?? lastName;
  /** @type {HTMLFormElement} */ (byId("join")).requestSubmit();
}
