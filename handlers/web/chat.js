// @ts-check
/// <reference lib="dom" />
/**
 * The chat page: a room on `client.js`.
 *
 * @module
 */
// @ts-types="../client/client.js"
import { connect } from "./client.js";
import { MessageList } from "./messages.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

const HISTORY = 100;
const MEMBERS_MS = 500;
const PATIENCE_MS = 1_000;
const NAME_KEY = "parley.name";
const asked = new URLSearchParams(location.search).get("room") || "lobby";
field("where").value = asked;
const room = field("where").validity.valid ? asked : "lobby";
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const list = new MessageList(byId("messages"), byId("newest"), `#${room}`);
if (room !== asked) list.addNote("gap", `“${asked}” cannot be a room's name. This is #${room}.`);

const client = connect(new URL(".", location.href), {
  room,
  token,
  history: HISTORY,
  onMessage: (message) => list.addChat(message),
  onStatus: ({ message, members }) => {
    list.addNote("status", message);
    showCount(members);
  },
  onWelcome: ({ members }) => showCount(members),
  onGap: () => list.addNote("gap", "Some messages may be missing here."),
  onState: showState,
  onError: ({ code, message }) => {
    if (client.state === "closed") showBanner(`Disconnected: ${message} ${advice(code)}`, true);
    else if (code === "bad_name" || code === "forbidden") askName(message);
    else showBanner(message, true);
  },
});

/** What helps after a final refusal. @param {string} code */
function advice(code) {
  return code.includes("token")
    ? "Put one behind this page's address: #token=…"
    : "Reload the page to try again.";
}

/** @param {string} state */
function showState(state) {
  if (state === "open") {
    showBanner("");
  } else if (state === "reconnecting") {
    showBanner("Reconnecting … What you write is sent when the connection is back.");
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
  showMembers(MEMBERS_MS);
}

let isAsking = false;
/** Asks who is here, if somebody looks: once for many who come within `ms`. @param {number} ms */
function showMembers(ms) {
  if (isAsking || !byId("members").matches(":popover-open")) return;
  isAsking = true;
  setTimeout(async () => {
    isAsking = false;
    const { members } = await client.members().catch(() => ({ members: [] }));
    byId("members").replaceChildren(...members.map((name) => {
      const item = document.createElement("li");
      item.textContent = name;
      return item;
    }));
  }, ms);
}

/** The name in the room, as far as the server has not refused it. */
let ownName = "";

/** @param {string} [refusal] */
function askName(refusal = "") {
  if (refusal) ownName = "";
  byId("join").hidden = false;
  byId("say").hidden = true;
  field("name").select();
  field("name").setCustomValidity(refusal);
  if (refusal) field("name").reportValidity();
}

function startTalking() {
  byId("join").hidden = true;
  byId("say").hidden = false;
  byId("rename").textContent = ownName;
  byId("rename").setAttribute("aria-label", `${ownName}: change name or room`);
  field("text").focus();
}

/** @param {string} text */
async function say(text) {
  const mark = list.addOwn(ownName, text, () => {
    say(text);
    field("text").focus();
  });
  try {
    const { epoch, seq } = await client.send(text);
    mark.acked(epoch, seq);
  } catch (error) {
    const { code, message } = /** @type {import("../client/client.js").ParleyError} */ (error);
    if (code === "unknown") mark.failed("Perhaps not delivered");
    else mark.failed(`Not sent: ${client.state === "closed" ? "disconnected" : message}`);
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
 * @param {"localStorage" | "sessionStorage"} where @param {string} [name] to keep
 */
function storedName(where, name) {
  try {
    if (name) globalThis[where].setItem(NAME_KEY, name);
    return globalThis[where].getItem(NAME_KEY);
  } catch {
    return null;
  }
}

byId("room").textContent = byId("room").title = `#${room}`;
field("where").value = room;
const fixedName = nameInToken();
field("name").value = fixedName ?? storedName("localStorage") ?? "";
field("name").readOnly = fixedName !== undefined;
field("name").oninput = () => field("name").setCustomValidity("");
setTimeout(() => client.state === "connecting" && showBanner("Connecting …"), PATIENCE_MS);
addEventListener("hashchange", () => location.reload());

byId("join").onsubmit = (event) => {
  event.preventDefault();
  const name = field("name").value.trim();
  if (!name) return askName("Please write a name.");
  storedName("localStorage", name);
  storedName("sessionStorage", name);
  if (field("where").value !== room) {
    location.search = `?${new URLSearchParams({ room: field("where").value })}`;
    return;
  }
  if (name !== ownName) client.join(name);
  ownName = name;
  startTalking();
};

byId("join").onkeydown = ({ key }) => {
  if (key === "Escape" && ownName) startTalking();
};

byId("rename").onclick = () => askName();

byId("members").ontoggle = () => showMembers(0);

byId("say").onsubmit = (event) => {
  event.preventDefault();
  const text = field("text").value;
  if (text.trim() === "") return;
  field("text").value = "";
  list.markRead();
  say(text);
};

field("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  /** @type {HTMLFormElement} */ (byId("say")).requestSubmit();
};

byId("share").onclick = async () => {
  const url = new URL(`?${new URLSearchParams({ room })}`, location.href).href;
  try {
    await navigator.clipboard.writeText(url);
    byId("said").textContent = "Link copied";
    byId("share").textContent = "Copied";
  } catch {
    // Without permission the link can still be seen and copied by hand.
    prompt("Link to this room", url);
  }
  setTimeout(() => {
    byId("said").textContent = "";
    byId("share").textContent = "Copy link";
  }, 2_000);
};

// Who has joined in this tab stays so over a reload and a change of room.
const ownLast = storedName("sessionStorage");
if (ownLast) {
  field("name").value = fixedName ?? ownLast;
  /** @type {HTMLFormElement} */ (byId("join")).requestSubmit();
}
