/**
 * The control: echo and chat in a bare Deno loop. What it costs is the runtime; what Parley costs more is Parley.
 *
 * `deno run -A control.ts PORT|SOCKET_PATH`
 */

const rooms = new Map<string, Set<WebSocket>>();

function echo(socket: WebSocket): void {
  socket.onmessage = ({ data }) => socket.send(`Echo: ${data}`);
}

function broadcast(sockets: Set<WebSocket>, object: unknown): void {
  const text = JSON.stringify(object);
  for (const socket of sockets) {
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
  }
}

function chat(socket: WebSocket, room: string): void {
  const sockets = rooms.get(room) ?? new Set();
  rooms.set(room, sockets);
  let sender = "Anonymous";
  socket.onopen = () => sockets.add(socket);
  socket.onclose = () => sockets.delete(socket);
  socket.onmessage = ({ data }) => {
    const { type, name, message } = JSON.parse(data);
    if (type === "join") {
      sender = name;
      broadcast(sockets, { type: "status", message: `${sender} joined the chat.` });
    } else {
      broadcast(sockets, { type: "chat", sender, message });
    }
  };
}

/** An event stream that says one thing, and stays. */
function events(): Response {
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode("event: welcome\n\n")),
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

function handler(request: Request): Response {
  if (request.url.endsWith("/events")) return events();
  const { socket, response } = Deno.upgradeWebSocket(request);
  if (request.url.endsWith("/echo")) echo(socket);
  else chat(socket, request.url);
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
