// The chat page: a plain socket, until somebody leaves it.
const room = new URLSearchParams(location.search).get("room") ?? "lobby";
const byId = (id) => document.getElementById(id);
const socket = new WebSocket(new URL(`/chat/${encodeURIComponent(room)}`, location.href));

byId("room").textContent = `#${room}`;
socket.onopen = () => byId("state").textContent = "Connected";
socket.onclose = () => byId("state").textContent = "Disconnected: reload the page to come back";
socket.onmessage = ({ data }) => {
  const { type, sender, message } = JSON.parse(data);
  const item = document.createElement("li");
  item.className = type;
  if (type === "chat") {
    const name = document.createElement("span");
    name.className = "sender";
    name.textContent = sender;
    item.append(name);
  }
  item.append(typeof message === "string" ? message : JSON.stringify(message));
  byId("messages").append(item);
  item.scrollIntoView();
};

byId("join").onsubmit = (event) => {
  event.preventDefault();
  socket.send(JSON.stringify({ type: "join", name: byId("name").value }));
  byId("join").hidden = true;
  byId("say").hidden = false;
  byId("text").focus();
};

byId("say").onsubmit = (event) => {
  event.preventDefault();
  if (byId("text").value === "") return;
  socket.send(JSON.stringify({ type: "chat", message: byId("text").value }));
  byId("text").value = "";
};
