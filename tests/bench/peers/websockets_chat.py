"""Echo and chat on Python's websockets.

`python3 websockets_chat.py PORT gather|broadcast`: `gather` awaits one send a
client, as chat tutorials do; `broadcast` is the library's own function.
"""

import asyncio
import json
import sys

import websockets

port, way = int(sys.argv[1]), sys.argv[2]
clients = set()


async def send_to_all(message):
    text = json.dumps(message)
    if way == "broadcast":
        websockets.broadcast(clients, text)
    else:
        sends = [client.send(text) for client in clients]
        await asyncio.gather(*sends, return_exceptions=True)


async def echo(websocket):
    async for text in websocket:
        await websocket.send(f"Echo: {text}")


async def chat(websocket):
    sender = "Anonymous"
    clients.add(websocket)
    try:
        async for text in websocket:
            received = json.loads(text)
            if received["type"] == "join":
                sender = received["name"]
                status = f"{sender} joined the chat."
                await send_to_all({"type": "status", "message": status})
            else:
                message = received["message"]
                await send_to_all(
                    {"type": "chat", "sender": sender, "message": message}
                )
    finally:
        clients.remove(websocket)


async def handler(websocket, path):
    try:
        await (echo if path.endswith("/echo") else chat)(websocket)
    except websockets.ConnectionClosed:
        pass


async def main():
    async with websockets.serve(handler, "127.0.0.1", port):
        await asyncio.Future()


asyncio.run(main())
