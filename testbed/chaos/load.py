"""Messages to actors, what became of the POSTs, and the effects that came back.

Every POST carries a tag of its own, also where a message is posted again
because nobody knows what became of the POST before: so the store may have each
tag once, must have those that got a 2xx, and no other.
"""

import base64
import collections
import dataclasses
import http.client
import json
import random
import socketserver
import threading
import time

from network import enter

COLLECTOR_PORT = 9000


@dataclasses.dataclass
class Post:
    """One POST of a message. `outcome` is accepted, refused or unknown."""

    tag: str
    actor: "Actor"
    outcome: str = "unknown"
    execution: str | None = None
    halted: bool = False
    at: float = 0.0
    detail: str = ""


@dataclasses.dataclass
class Actor:
    name: str
    tenant: str
    stateful: bool
    token: str
    # Between two messages, on average.
    seconds: float
    # How long its containers work, at most.
    milliseconds: int
    id: str = ""


class Api:
    """One of the service's addresses, for one thread of a client."""

    def __init__(self, address, port):
        self.address, self.port = address, port

    def request(self, token, method, path, body=None, timeout=8):
        """Status and the answer's JSON. Raises OSError or HTTPException where no answer came."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {token}"}
            if body is not None:
                body = json.dumps(body)
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, {"text": text.decode(errors="replace")}


class Load:
    """Clients on the host `load`, one thread per actor, taking turns over `apis`."""

    def __init__(self, apis, actors, seed, say):
        self.apis, self.actors, self.seed, self.say = apis, actors, seed, say
        self.posts = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(number, actor), daemon=True) for number, actor in enumerate(actors)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def accepted(self):
        with self.lock:
            return [post for post in self.posts if post.outcome == "accepted"]

    def client(self, number, actor):
        enter("load")
        chance = random.Random(f"{self.seed} load {number}")
        message = 0
        while not self.stopping.wait(chance.expovariate(1 / actor.seconds)):
            message += 1
            # Most are short; some are longer than a lease.
            milliseconds = actor.milliseconds if chance.random() < 0.05 else chance.randrange(0, 600)
            post = self.post_until_accepted(number, actor, message, milliseconds)
            if post and chance.random() < 0.02:
                self.stopping.wait(chance.random())
                self.halt(actor, post)

    def post_until_accepted(self, number, actor, message, milliseconds):
        for again in range(1000):
            post = Post(f"{actor.name}-{message}-{again}", actor, at=time.time())
            with self.lock:
                self.posts.append(post)
            api = self.apis[(number + message + again) % len(self.apis)]
            try:
                status, answer = api.request(actor.token, "POST", f"/actors/v2/{actor.id}/messages", {"message": f"{post.tag} {milliseconds}"})
            except (OSError, http.client.HTTPException) as error:
                post.detail = repr(error)
            else:
                if 200 <= status < 300:
                    post.execution = answer["result"]["executionId"]
                    post.outcome = "accepted"
                    return post
                # It said no, or that it does not know.
                post.outcome = "refused" if status < 500 else "unknown"
                post.detail = f"{status} {json.dumps(answer)[:300]}"
            if self.stopping.wait(0.3):
                return None
        return None

    def halt(self, actor, post):
        post.halted = True
        for api in self.apis * 3:
            try:
                status, _ = api.request(actor.token, "DELETE", f"/actors/v2/{actor.id}/executions/{post.execution}")
            except (OSError, http.client.HTTPException):
                continue
            if status < 500:
                return


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a container told: that the run `nonce` of an execution begins or ends."""

    what: str
    execution: str
    nonce: str
    attempt: int
    worker: str
    epoch: int | None
    tag: str
    at: float


class Collector:
    """Takes effects on the host `load`; what was answered is kept."""

    def __init__(self):
        self.effects = collections.defaultdict(list)
        self.lock = threading.Lock()
        self.ready = threading.Event()

    def start(self, address):
        threading.Thread(target=self.serve, args=(address,), daemon=True).start()
        if not self.ready.wait(10):
            raise RuntimeError("the collector did not start")

    def serve(self, address):
        enter("load")
        collector = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 10

            def handle(self):
                words = self.rfile.readline(8192).decode(errors="replace").split()
                if len(words) == 7:
                    collector.take(*words)
                    self.wfile.write(b"kept\n")

            def finish(self):
                try:
                    super().finish()
                except OSError:
                    pass  # The container gave up waiting.

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # A container that was killed while it spoke.

        with Server((address, COLLECTOR_PORT), Handler) as server:
            self.ready.set()
            server.serve_forever()

    def take(self, what, execution, nonce, attempt, worker, payload, tag):
        effect = Effect(what, execution, nonce, int(attempt) if attempt.isdigit() else -1, worker, epoch_of(payload), tag, time.time())
        with self.lock:
            self.effects[execution].append(effect)


def epoch_of(payload):
    """The claim that an access token was made for, of the token's middle part."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    return claims.get("abax/epoch")
