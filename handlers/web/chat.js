// @ts-check
/// <reference lib="dom" />
/**
 * The chat page: a room on `client.js`.
 *
 * @module
 */
import { connect } from "./client.js";
import { MessageList } from "./messages.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

const HISTORY = 100;
const MEMBERS_MS = 1_000;
const room = new URLSearchParams(location.search).get("room") || "lobby";
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const list = new MessageList(byId("messages"), byId("newest"), `#${room}`);

const client = connect(location.origin, {
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
    if (client.state === "closed") showBanner(`Disconnected: ${message}`, true);
    else if (code === "bad_name" || code === "forbidden") askName(message);
    else if (code !== "rate_limited") showBanner(message, true);
  },
});

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
  byId("banner").hidden = text === "";
  byId("banner").className = isBad ? "bad" : "";
  byId("banner").textContent = text;
}

let isAsking = false;
/** @param {number} members */
function showCount(members) {
  byId("count").textContent = String(members);
  if (isAsking) return;
  isAsking = true;
  // One question for many who come at once.
  setTimeout(async () => {
    isAsking = false;
    const { members } = await client.members().catch(() => ({ members: [] }));
    byId("members").replaceChildren(...members.map((name) => {
      const item = document.createElement("li");
      item.textContent = name;
      return item;
    }));
  }, MEMBERS_MS);
}

/** @param {string} why */
function askName(why) {
  byId("join").hidden = false;
  byId("say").hidden = true;
  field("name").setCustomValidity(why);
  field("name").reportValidity();
  field("name").select();
}

/** @param {string} text */
async function say(text) {
  const mark = list.addOwn(field("name").value, text, () => say(text));
  try {
    const { epoch, seq } = await client.send(text);
    mark.acked(epoch, seq);
  } catch (error) {
    mark.failed(/** @type {Error} */ (error).message);
  }
}

byId("room").textContent = `#${room}`;
field("where").value = room;
field("name").value = localStorage.getItem("parley.name") ?? "";
field("name").oninput = () => field("name").setCustomValidity("");

byId("join").onsubmit = (event) => {
  event.preventDefault();
  const name = field("name").value;
  localStorage.setItem("parley.name", name);
  if (field("where").value !== room) {
    location.search = `?${new URLSearchParams({ room: field("where").value })}`;
    return;
  }
  client.join(name);
  byId("join").hidden = true;
  byId("say").hidden = false;
  byId("rename").textContent = name;
  byId("rename").setAttribute("aria-label", `Change name, now ${name}`);
  field("text").focus();
};

byId("rename").onclick = () => askName("");

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
  const url = new URL(`/?${new URLSearchParams({ room })}`, location.href).href;
  try {
    await navigator.clipboard.writeText(url);
    byId("said").textContent = "Link copied";
    byId("share").textContent = "Copied";
  } catch {
    // Without permission the link can still be seen and copied by hand.
    prompt("Link to this room", url);
  }
  setTimeout(() => byId("share").textContent = "Copy link", 2_000);
};
