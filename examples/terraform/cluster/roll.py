"""A service of several nodes, as small as one can be: every machine reports to the leader, which knows who is there.

    python3 roll.py LEADER     GET http://LEADER:8080/roll names the machines seen within the last minute
"""

import json
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
# Three reports may be lost before a machine counts as gone.
EVERY, GONE = 15, 60

seen = {}


class Roll(BaseHTTPRequestHandler):
    def do_GET(self):
        now = time.monotonic()
        here = sorted(name for name, at in list(seen.items()) if now - at < GONE)
        self.answer(200 if self.path == "/roll" else 404, json.dumps({"here": here}) + "\n")

    def do_PUT(self):
        seen[self.path.strip("/")] = time.monotonic()
        self.answer(200, "")

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def report(leader):
    while True:
        url = f"http://{leader}:{PORT}/{socket.gethostname()}"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10).close()
        except OSError as error:
            print(f"the leader does not answer: {error}", file=sys.stderr)
        time.sleep(EVERY)


threading.Thread(target=report, args=(sys.argv[1],), daemon=True).start()
ThreadingHTTPServer(("", PORT), Roll).serve_forever()
