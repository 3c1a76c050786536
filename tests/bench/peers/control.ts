/**
 * The control: echo and chat in a bare Deno loop. What it costs is the runtime; what Parley costs more is Parley.
 *
 * `deno run -A control.ts PORT|SOCKET_PATH`
 */

const sockets = new Set<WebSocket>();

function echo(socket: WebSocket): void {
  socket.onmessage = ({ data }) => socket.send(`Echo: ${data}`);
}

function broadcast(object: unknown): void {
  const text = JSON.stringify(object);
  for (const socket of sockets) {
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
  }
}

function chat(socket: WebSocket): void {
  let sender = "Anonymous";
  socket.onopen = () => sockets.add(socket);
  socket.onclose = () => sockets.delete(socket);
  socket.onmessage = ({ data }) => {
    const { type, name, message } = JSON.parse(data);
    if (type === "join") {
      sender = name;
      broadcast({ type: "status", message: `${sender} joined the chat.` });
    } else {
      broadcast({ type: "chat", sender, message });
    }
  };
}

function handler(request: Request): Response {
  const { socket, response } = Deno.upgradeWebSocket(request);
  if (request.url.endsWith("/echo")) echo(socket);
  else chat(socket);
  return response;
}

const address = Deno.args[0];
const onListen = () => {};
if (/^\d+$/.test(address)) {
  Deno.serve(
    { hostname: "127.0.0.1", port: Number(address), onListen },
    handler,
  );
} else {
  Deno.serve({ path: address, onListen }, handler);
}
