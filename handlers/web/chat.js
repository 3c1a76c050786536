// @ts-check
/** The chat page: a room on `client.js`. @module */
// @ts-types="../client/client.d.ts"
import { connect } from "./client.js";
import { setHue, showFailed } from "./message.js";
import { MessageList } from "./messages.js";
import { addressOf, byId, element, linkTo, listRooms, token } from "./page.js";
import { showMembers, Typing } from "./people.js";

const HISTORY = 50;
const MAX_OWN = 500;
const MEMBERS_MS = 500;
/** Colours need not be there at once, whatever else is in the room's state. */
const COLORS_MS = 500;
const PATIENCE_MS = 1_000;
const SAID_MS = 2_000;
/** How often others are told that somebody is writing. */
const TYPING_MS = 2_500;
const BANNERS = {
  connecting: "Connecting …",
  open: "",
  reconnecting: "Connection lost, trying again. What you write is sent when it is back.",
};
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
byId("where").value = asked;
const room = byId("where").validity.valid ? asked : "lobby";
const title = `#${room}`;
const ownPositions = new Set(JSON.parse(stored(`own.${room}`) ?? "[]"));
const typing = new Typing(byId("typing"));
const readOlder = async (/** @type {import("../client/client.js").Cursor} */ before) =>
  (await client.history({ before, limit: HISTORY })).messages;
const list = new MessageList(byId("messages"), byId("newest"), title, readOlder, ownPositions);
if (room !== asked) list.addNotice(`“${asked}” cannot be a room's name. This is ${title}.`);

const client = connect(".", {
  room,
  token,
  history: HISTORY,
  state: { every: COLORS_MS },
  onMessage: (message) => {
    typing.set(message.sender, false);
    list.addMessage(message);
    notify(message);
  },
  onNote: ({ sender, message }) => {
    const isTyping = /** @type {{ typing?: unknown } | null} */ (message)?.typing === true;
    if (isTyping && sender !== ownName) typing.set(sender, true);
  },
  onState: ({ entries }) => {
    const chosen = entries.filter(isColor);
    for (const { sender, value } of chosen) setHue(sender, Number(value));
    if (chosen.length > 0) refreshMembers(MEMBERS_MS);
  },
  onStatus: (status) => {
    list.addStatus(status);
    showCount(status.members);
  },
  onWelcome: ({ members }) => {
    byId("people").hidden = false;
    showCount(members);
    // The history follows right behind.
    setTimeout(() => byId("messages").dataset.empty = "No messages yet.");
  },
  onGap: () => list.addNotice("Some messages may be missing here."),
  onConnection: (state) => {
    list.setOnline(state === "open");
    if (state !== "closed") showBanner(BANNERS[state]);
  },
  onError: ({ code, message }) => {
    if (client.connection === "closed") {
      const text = FINAL_TEXTS[/** @type {keyof typeof FINAL_TEXTS} */ (code)];
      showBanner(text ?? `Disconnected: ${message} Reload the page to try again.`, "bad");
      byId("messages").dataset.empty = "";
      show();
    } else if (code === "bad_name") askName(message);
    else if (code === "forbidden") show("mute");
    else showBanner(message, "bad");
  },
});

/** @param {string} [textContent] */
function showBanner(textContent = "", className = "") {
  Object.assign(byId("banner"), { textContent, className });
}

/** @param {number} members */
function showCount(members) {
  byId("people").textContent = `${members} here`;
  refreshMembers(MEMBERS_MS);
}

let isRefreshing = false;
/** Refreshes the open list of members, once for all who come within `ms`. @param {number} ms */
function refreshMembers(ms) {
  if (isRefreshing || !byId("members").matches(":popover-open")) return;
  isRefreshing = true;
  setTimeout(async () => {
    isRefreshing = false;
    const members = await client.members().catch(() => ({ members: [], count: 0 }));
    const colors = [...client.state().keys()].map((key) => client.entry(key)).filter(isColor)
      .sort(({ key }) => key === colorKey ? -1 : 1);
    showMembers(byId("names"), byId("search"), members, ownName, colors);
  }, ms);
}

/** This tab's colour in the state, and that of others. The key is bound to the connection. */
const colorKey = `colors/${Math.random().toString(36).slice(2)}`;
/** @param {import("../client/client.js").Entry | undefined} entry @returns {entry is import("../client/client.js").Entry<number>} */
const isColor = (entry) =>
  entry?.key.startsWith("colors/") === true && Number.isInteger(entry.value);

/** Lists the rooms that somebody is in, as links. */
async function showRooms() {
  const items = (await listRooms() ?? []).map(({ room, members }) => {
    const link = linkTo(room);
    link.append(element("small", {}, `${members} here`));
    return element("li", {}, link);
  });
  byId("list").replaceChildren(...items);
}

/** Shows one of the forms, or why there is none. @param {"join" | "say" | "mute"} [shown] */
function show(shown) {
  for (const id of ["join", "say", "mute"]) byId(id).hidden = id !== shown;
}

/** The own name, unless the server refused it. */
let ownName = "";

/** @param {string} [refusal] */
function askName(refusal = "") {
  show("join");
  byId("cancel").hidden = !ownName || refusal !== "";
  byId("enter").textContent = ownName ? "Save" : "Join";
  if (refusal) ownName = "";
  byId("name").select();
  byId("name").setCustomValidity(refusal);
  if (refusal) byId("name").reportValidity();
}

function startTalking() {
  show("say");
  byId("rename").textContent = ownName;
  byId("rename").setAttribute("aria-label", `${ownName}: change name`);
  byId("rename").disabled = fixedName !== undefined;
  byId("text").focus();
}

/** @param {string} text */
async function say(text) {
  const item = list.addOwn(ownName, text);
  try {
    const { epoch, seq } = await client.send(text);
    list.settle(item, `${epoch}:${seq}`);
    stored(`own.${room}`, JSON.stringify([...ownPositions].slice(-MAX_OWN)));
  } catch (error) {
    const { code, message } = /** @type {import("../client/client.js").ParleyError} */ (error);
    const reason = client.connection === "closed" ? "disconnected" : message;
    showFailed(item, code === "unknown" ? "Perhaps not delivered" : `Not sent: ${reason}`, () => {
      say(text);
      byId("text").focus();
    });
    if (code === "forbidden") show("mute");
  }
}

/** Notifies while the page is hidden, if asked to. @param {import("../client/client.js").Message} message */
function notify({ sender, message }) {
  if (!document.hidden || !byId("notify").checked) return;
  try {
    new Notification(`${sender} in ${title}`, { body: String(message), tag: room });
  } catch {
    // Some phones allow pages no notifications.
  }
}

/** What the token says; only the server verifies it. Without a token people choose their name, and may speak. */
function readClaims() {
  try {
    const claims = token?.split(".")[1].replaceAll("-", "+").replaceAll("_", "/") ?? "";
    const bytes = Uint8Array.from(atob(claims), (letter) => letter.charCodeAt(0));
    const { sub, name = sub, rooms = ["*"], speak = rooms } = JSON.parse(
      new TextDecoder().decode(bytes),
    );
    const isNamed = (/** @type {string[]} */ rules) =>
      rules.map((rule) => rule.replaceAll("{sub}", sub)).some((rule) =>
        rule.endsWith("*") ? room.startsWith(rule.slice(0, -1)) : rule === room
      );
    return { name, maySpeak: isNamed(rooms) && isNamed(speak) };
  } catch {
    return { name: undefined, maySpeak: true };
  }
}

/** What this tab keeps over a reload, or this browser. @param {string} key @param {string} [value] to keep */
function stored(key, value, isForever = false) {
  try {
    const storage = isForever ? localStorage : sessionStorage;
    if (value !== undefined) storage.setItem(`parley.${key}`, value);
    return storage.getItem(`parley.${key}`);
  } catch {
    // The browser does not allow it.
    return null;
  }
}

byId("room").textContent = byId("room").title = title;
byId("where").value = "";
byId("text").value = stored(`draft.${room}`) ?? "";
const { name: fixedName, maySpeak } = readClaims();
byId("name").value = fixedName ?? stored("name", undefined, true) ?? "";
byId("name").readOnly = fixedName !== undefined;
byId("hue").value = stored("hue", undefined, true) ?? `${Math.floor(Math.random() * 360)}`;
const showHue = () => byId("hue").style.setProperty("--hue", byId("hue").value);
byId("hue").oninput = showHue;
showHue();
byId("name").oninput = () => byId("name").setCustomValidity("");
let typedAt = -Infinity;
byId("text").oninput = () => {
  stored(`draft.${room}`, byId("text").value);
  if (performance.now() - typedAt < TYPING_MS) return;
  typedAt = performance.now();
  client.note({ typing: true });
};
setTimeout(() => client.connection === "connecting" && showBanner(BANNERS.connecting), PATIENCE_MS);

byId("join").onsubmit = (event) => {
  event.preventDefault();
  const name = byId("name").value.trim();
  if (!name) return askName("Please write a name.");
  stored("name", name, true);
  stored("name", name);
  if (name !== ownName) client.join(name);
  ownName = name;
  stored("hue", byId("hue").value, true);
  // Without space for it others see a colour that is made of the name.
  client.set(colorKey, Number(byId("hue").value), { bind: true });
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
  location.href = addressOf(byId("where").value);
};

byId("notify").onchange = async () => {
  const answer = await globalThis.Notification?.requestPermission();
  byId("notify").checked &&= answer === "granted";
};

byId("say").onsubmit = (event) => {
  event.preventDefault();
  const text = byId("text").value;
  if (text.trim() === "") return;
  byId("text").value = "";
  typedAt = -Infinity;
  stored(`draft.${room}`, "");
  list.markRead();
  say(text);
};

byId("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("text").form?.requestSubmit();
};

byId("share").onclick = async () => {
  const url = new URL(addressOf(room), location.href);
  url.hash = "";
  try {
    await navigator.clipboard.writeText(url.href);
    byId("said").textContent = "Link copied";
    byId("share").textContent = "Copied";
  } catch {
    // Without permission the link can still be seen and copied by hand.
    prompt("Link to this room", url.href);
  }
  setTimeout(() => [byId("said").textContent, byId("share").textContent] = ["", "Share"], SAID_MS);
};

// Whoever joined in this tab stays joined over a reload and a change of room.
const lastName = stored("name");
if (room.startsWith("_") || !maySpeak) show("mute");
else if (lastName) {
  byId("name").value = fixedName ?? lastName;
  byId("name").form?.requestSubmit();
}
