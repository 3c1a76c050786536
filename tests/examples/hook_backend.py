"""A backend behind HOOK_URL: decides who may join and what is said, and bans who goes too far.

    HOOK_SECRET=… TOKEN=… PARLEY=http://localhost:8000 python3 hook_backend.py 9000

TOKEN needs the claim admin.
"""
import hashlib, hmac, json, os, sys, time, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["HOOK_SECRET"].encode()


def is_signed(header, body):
    """Whether a body is from the server, and not minutes old."""
    signature = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(SECRET, signature.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, signature.get("v1", "")) and abs(time.time() - int(signature["t"])) < 300


def ban(user, seconds):
    """Ends all that a user has open, and refuses the user's tokens for so long."""
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    url = f"{os.environ['PARLEY']}/users/{urllib.parse.quote(user, safe='')}?seconds={seconds}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers)).close()


def decide(asked):
    """Status and answer to one question."""
    if asked["event"] == "join" and asked["name"] == "root":
        return 403, {"message": "Not this name."}
    if asked["event"] == "chat" and "casino" in json.dumps(asked["message"]):
        ban(asked["user"], 60)
        return 403, {"message": "No advertising."}
    if asked["event"] == "chat" and asked["message"] == "damn":
        return 200, {"message": "d***"}
    return 200, {}


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept alive

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if is_signed(self.headers.get("Parley-Signature", ""), body):
            status, answer = decide(json.loads(body))
        else:
            status, answer = 401, {}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hook)
    print(f"asked at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
