// Echo and chat on Node with `ws`, as its README broadcasts.
// `node ws.mjs PORT FOLDER`, where FOLDER holds node_modules/ws.

import { Buffer } from "node:buffer";
import { createRequire } from "node:module";
import process from "node:process";

const [port, folder] = process.argv.slice(2);
const { WebSocket, WebSocketServer } = createRequire(`${folder}/`)("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port) });
const sockets = new Set();

function broadcast(object) {
  const bytes = Buffer.from(JSON.stringify(object));
  for (const socket of sockets) {
    if (socket.readyState === WebSocket.OPEN) {
      socket.send(bytes, { binary: false });
    }
  }
}

function chat(socket) {
  let sender = "Anonymous";
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
  socket.on("message", (data) => {
    const { type, name, message } = JSON.parse(data);
    if (type === "join") {
      sender = name;
      broadcast({ type: "status", message: `${sender} joined the chat.` });
    } else {
      broadcast({ type: "chat", sender, message });
    }
  });
}

server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url.endsWith("/echo")) {
    socket.on("message", (data) => socket.send(`Echo: ${data}`));
  } else {
    chat(socket);
  }
});
