// Echo and chat on Bun, whose `publish` merges the frames of a turn into one write a socket.
// `bun bun.js PORT`

function chat(socket, text) {
  const { type, name, message } = JSON.parse(text);
  if (type === "join") socket.data.sender = name;
  const { sender, room } = socket.data;
  const object = type === "join"
    ? { type: "status", message: `${sender} joined the chat.` }
    : { type: "chat", sender, message };
  server.publish(room, JSON.stringify(object));
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.argv[2]),
  fetch(request, server) {
    const echo = request.url.endsWith("/echo");
    const data = { echo, room: request.url, sender: "Anonymous" };
    if (!server.upgrade(request, { data })) return new Response("Not Found");
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      if (!socket.data.echo) socket.subscribe(socket.data.room);
    },
    message(socket, text) {
      if (socket.data.echo) socket.send(`Echo: ${text}`);
      else chat(socket, text);
    },
  },
});
