"""A program of somebody else: it knows the address, the administrator's token and the documents that the server tells, and nothing
of its source. It takes on a shop and a warehouse, tells stock, follows by stream and by webhook, reserves, and checks that all say the
same.

    python tests/outside.py http://ADDRESS ADMIN-TOKEN

Signatures are checked with the library that the authors of Standard Webhooks publish (PyPI: standardwebhooks).
"""

import http.server
import json
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

from standardwebhooks import Webhook

server, admin = sys.argv[1:]
mark = uuid.uuid4().hex[:8]


def ask(token, method, path, body=None, headers={}):
    request = urllib.request.Request(server + path, method=method, data=None if body is None else json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def well(answer):
    assert 200 <= answer[0] < 300, answer
    return answer[1]


# The calls are those of the document.
document = well(ask(admin, "GET", "/v1/openapi.json"))
for call, method in [("/v1/events", "post"), ("/v1/reservations", "post"), ("/v1/changes", "get"), ("/v1/webhooks/{name}", "put")]:
    assert method in document["paths"][call], call
assert "webhook" in well(ask(admin, "GET", "/v1/asyncapi.json"))["channels"]

# Taken on: a node with its warehouse, a channel with its shop.
node, channel, sku = f"north-{mark}", f"shop-{mark}", f"LAMP-{mark}"
well(ask(admin, "PUT", f"/v1/nodes/{node}", {"type": "3pl"}))
well(ask(admin, "PUT", f"/v1/groups/{channel}", {"nodes": [node]}))
well(ask(admin, "PUT", f"/v1/channels/{channel}", {"group": channel, "low": 3}))
warehouse = well(ask(admin, "PUT", f"/v1/tokens/wms-{mark}", {"role": "warehouse", "nodes": [node]}))["token"]
shop = well(ask(admin, "PUT", f"/v1/tokens/{channel}", {"role": "channel", "channel": channel}))["token"]

# It listens.
messages = queue.Queue()


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        messages.put((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=listener.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{listener.server_port}/"
secret = well(ask(admin, "PUT", f"/v1/webhooks/{channel}", {"url": url, "channel": channel, "what": ["numbers", "reservations"], "gather_ms": 0}))["secret"]
stream = urllib.request.Request(f"{server}/v1/changes?what=reservations,numbers&snapshot=true", headers={"Authorization": f"Bearer {shop}"})
streamed = queue.Queue()


def read(answer):
    kind = None
    for line in answer:
        line = line.decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line[7:]
        if line.startswith("data: "):
            streamed.put((kind, json.loads(line[6:])))


threading.Thread(target=read, args=(urllib.request.urlopen(stream),), daemon=True).start()

# Stock comes, a customer claims some of it, the order is placed and shipped.
event = {"id": "1", "source": f"wms-{mark}", "type": "receipt", "occurred_at": "2026-01-31T12:00:00Z", "sku": sku, "node": node, "quantity": 10}
for status in ["applied", "duplicate"]:
    assert well(ask(warehouse, "POST", "/v1/events", {"events": [event]}))["results"][0]["status"] == status
assert ask(shop, "POST", "/v1/events", {"events": [event]})[0] == 403
wanted = {"channel": channel, "ttl_ms": 60000, "fill": "all", "lines": [{"sku": sku, "quantity": 8}]}
key = {"Idempotency-Key": str(uuid.uuid4())}
held = well(ask(shop, "POST", "/v1/reservations", wanted, key))
assert well(ask(shop, "POST", "/v1/reservations", wanted, key))["lsn"] == held["lsn"], "a repeat is told what the first was told"
status, short = ask(shop, "POST", "/v1/reservations", wanted, {"Idempotency-Key": str(uuid.uuid4())})
assert (status, short["code"]) == (409, "INSUFFICIENT_STOCK"), short
well(ask(shop, "POST", f"/v1/reservations/{held['id']}/confirm", {}))
shipped = dict(event, id="2", type="ship", quantity=8, reservation=held["id"])
assert well(ask(warehouse, "POST", "/v1/events", {"events": [shipped]}))["results"][0]["status"] == "applied"
left = well(ask(shop, "GET", f"/v1/availability/{sku}?channel={channel}"))["items"][0]
assert (left["available"], left["status"]) == (2, "low"), left


# Both were told all of it, in its order.
def told(source, take):
    steps, numbers, ends = [], [], time.time() + 30
    while "shipped" not in steps or numbers[-1:] != [2]:
        for kind, data in take(source.get(timeout=max(0.1, ends - time.time()))):
            if kind == "reservation":
                assert data["reservation"] == held["id"], data
                steps.append(data["what"])
            if kind == "change" and data["sku"] == sku:
                numbers.append(data["available"])
    assert steps == ["reserved", "confirmed", "shipped"], steps
    return numbers


def opened(message):
    headers, body = message
    assert Webhook(secret).verify(body, headers), "Standard Webhooks' own library takes it"
    return [(change["type"], change["data"]) for change in json.loads(body)["data"]["changes"]]


print("stream", told(streamed, lambda one: [one]), "webhook", told(messages, opened))

# It leaves.
well(ask(admin, "DELETE", f"/v1/webhooks/{channel}"))
well(ask(admin, "DELETE", f"/v1/tokens/{channel}"))
assert ask(shop, "GET", f"/v1/availability/{sku}?channel={channel}")[0] == 401
print("an outside client was taken on, told, followed, reserved, and left")
