"""Follows the room _events of a Parley server, over restarts of both: a line of JSON for each event.

    TOKEN=… python3 events_follower.py http://localhost:8000 position.json

TOKEN needs the claim admin. The file has where it was, and each room's last n, by which it knows what comes again.
"""
import http.client, json, os, sys, time, urllib.request


def stream(url, token, position):
    """What the server sends on one connection: name, id and data of each event."""
    headers = {"Authorization": f"Bearer {token}"}
    if position:
        headers["Last-Event-ID"] = position
    request = urllib.request.Request(f"{url}/rooms/_events/events", headers=headers)
    # A quiet server sends a comment each 15 s.
    with urllib.request.urlopen(request, timeout=40) as response:
        fields = {}
        for line in response:
            name, _, value = line.decode().rstrip("\n").partition(":")
            if name in ("event", "id", "data"):
                fields[name] = value.removeprefix(" ")
            elif not name and "data" in fields:
                yield fields.get("event", "message"), fields.get("id"), json.loads(fields["data"])
                fields = {}


def follow(url, token, file):
    state = json.load(open(file)) if os.path.exists(file) else {"position": None, "numbers": {}}
    while True:
        try:
            for name, position, data in stream(url, token, state["position"]):
                if name == "welcome" and data.get("recovered") is False:
                    print(json.dumps({"event": "gap"}), flush=True)  # ask GET /rooms/{room}/members who is where
                elif name == "message" and data["message"]["n"] > state["numbers"].get(data["message"]["room"], 0):
                    event = data["message"]
                    state["numbers"][event["room"]] = event["n"]
                    print(json.dumps(event), flush=True)
                state["position"] = position or state["position"]
                with open(file + ".new", "w") as new:
                    json.dump(state, new)
                os.replace(file + ".new", file)
        except (OSError, http.client.HTTPException) as error:
            print(f"{error}; trying again", file=sys.stderr, flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    follow(sys.argv[1], os.environ["TOKEN"], sys.argv[2])
