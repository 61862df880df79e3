#!/usr/bin/env python3
"""A service under a mixed load, and what is left of it afterwards.

    mixed.py ABAX WORK [--duration 600] [--rate 100] [--shape embedded|cluster]

ABAX is the program under test, WORK the compiled work.c. 50 users post messages of
every kind to 100 actors, `--rate` of them a second, for `--duration` seconds;
meanwhile executions are halted, mailboxes purged, actors deleted and made again,
and in the middle the service is stopped in good order and started again. When
nothing waits any more, all that was accepted must have ended once, results and
counts must agree, and nothing may be left: processes, mounts, control groups,
interfaces, descriptors, files, rows. Prints figures, and exits with 0 if all held.

Needs root, and what testbed/install.sh installs.
"""

import argparse
import collections
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).parents[1] / "bench"))

import load

USERS, ACTORS = 50, 100
# Synchronous calls hold one each until their execution has ended.
SENDERS = 200
SETTLE_SECONDS = 240
# Of its own, so that what is found there is this run's.
BRIDGE, SUBNET = "abxload", "10.231.0.0/16"


@dataclasses.dataclass
class Actor:
    number: int
    token: str = dataclasses.field(repr=False)
    kind: str
    id: str = ""


@dataclasses.dataclass
class Post:
    """One message; `outcome` is accepted, refused or unknown."""

    tag: str
    actor: Actor
    id: str
    kind: str
    at: float
    outcome: str = "unknown"
    execution: str = ""
    took: float = 0.0
    status: int = 0
    detail: str = ""


class Client:
    """One connection, opened again where it broke."""

    def __init__(self, url):
        self.place = urllib.parse.urlsplit(url).netloc
        self.connection = None

    def request(self, token, method, path, body=None, kind="application/json", timeout=90):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.place, timeout=timeout)
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = kind
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except BaseException:
            self.connection.close()
            self.connection = None
            raise

    def json(self, token, method, path, body=None):
        body = None if body is None else json.dumps(body)
        status, _, text = self.request(token, method, path, body)
        return status, json.loads(text)


class Run:
    def __init__(self, arguments, service, say):
        self.arguments, self.service, self.say = arguments, service, say
        self.random = random.Random(arguments.seed)
        self.lock = threading.Lock()
        self.posts, self.halts, self.deleted, self.failures = [], [], [], []
        self.stopping = threading.Event()
        self.seen, self.surplus = set(), 0

    # What actors are like: how long they work, what they send back.
    KINDS = [
        ("quick", {"WORK_MS": "0"}, {}),
        ("quick", {"WORK_MS": "20"}, {}),
        ("results", {"WORK_RESULTS": "3"}, {}),
        ("slow", {"WORK_MS": "1500"}, {}),
        ("stateful", {"WORK_MS": "0"}, {"stateless": False}),
    ]
    # Of a hundred messages: how many are of which kind. Slow actors get few.
    MESSAGES = [("form", 30), ("json", 25), ("list", 5), ("query", 12), ("binary", 18), ("synchronous", 10)]

    def register(self, client, actor):
        actor.kind, environment, more = self.KINDS[actor.number % len(self.KINDS)]
        body = {"image": "work", "name": f"actor-{actor.number}", "default_environment": environment, **more}
        status, answer = client.json(actor.token, "POST", "/v3/actors", body)
        if status != 200:
            raise OSError(f"could not register an actor: {status} {answer}")
        actor.id = answer["result"]["id"]

    def prepare(self):
        tokens = [self.service.abax_command("token", "--user", f"user{n}", "--role", "user") for n in range(USERS)]
        self.actors = [Actor(number, tokens[number % USERS], "") for number in range(ACTORS)]
        client = Client(self.service.urls[0])
        for actor in self.actors:
            self.register(client, actor)
        # Each has run once before anything is counted that may grow.
        for actor in self.actors:
            self.post(client, actor, "form", f"first-{actor.number}")
        self.settle()

    def send(self):
        """The messages of one sender, each at its time."""
        clients = {url: Client(url) for url in self.service.urls}
        while not self.stopping.is_set():
            with self.lock:
                number = self.next
                self.next += 1
                chance = random.Random(f"{self.arguments.seed} {number}")
                # Slow actors hold a slot for long, so they are asked less.
                actor = chance.choice(self.actors)
                if actor.kind == "slow" and chance.random() < 0.9:
                    actor = chance.choice([one for one in self.actors if one.kind != "slow"])
            wait = self.began + number / self.arguments.rate - time.monotonic()
            if wait > 0 and self.stopping.wait(wait):
                return
            kinds, weights = zip(*self.MESSAGES)
            kind = chance.choices(kinds, weights)[0]
            client = clients[self.service.urls[number % len(self.service.urls)]]
            post = self.post(client, actor, kind, f"m-{number}", chance)
            # Nobody knows what became of it, or nobody was there: once more, by another tag.
            while post.outcome == "unknown" and not self.stopping.wait(0.5):
                post = self.post(client, actor, kind, f"{post.tag}-again", chance)
            if post.outcome == "accepted" and chance.random() < 0.01:
                self.stopping.wait(chance.random() * 0.2)
                self.halt(client, post)

    def post(self, client, actor, kind, tag, chance=random):
        path, body, content = f"/v3/actors/{actor.id}/messages", None, "application/json"
        if kind == "form":
            body, content = urllib.parse.urlencode({"message": tag}), "application/x-www-form-urlencoded"
        elif kind == "json":
            body = json.dumps({"tag": tag, "n": chance.randrange(10**12), "text": "é" * chance.randrange(200)})
        elif kind == "list":
            body = json.dumps([tag, True, None, 1.5])
        elif kind == "query":
            path += f"?message={tag}&COLOUR=blue&environment=COLOUR"
        elif kind == "binary":
            body, content = tag.encode().ljust(chance.choice([10, 5_000, 100_000]), b"."), "application/octet-stream"
        elif kind == "synchronous":
            path += "?_abaco_synchronous=true"
            body = json.dumps({"message": tag})
        post = Post(tag, actor, actor.id, kind, time.monotonic())
        with self.lock:
            self.posts.append(post)
        try:
            post.status, headers, text = client.request(actor.token, "POST", path, body, content)
        except (OSError, http.client.HTTPException) as error:
            post.detail = repr(error)
            return post
        post.took = time.monotonic() - post.at
        post.execution = execution_of(headers, text)
        # One that waited for its end in vain, or for a bad one, was accepted all the same.
        post.outcome = "accepted" if post.execution else "refused" if post.status < 500 else "unknown"
        if post.status != 200:
            post.detail = text.decode(errors="replace")[:200]
        return post

    def halt(self, client, post):
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _, _ = client.request(post.actor.token, "DELETE", f"/v3/actors/{post.id}/executions/{post.execution}")
            with self.lock:
                self.halts.append(status)

    def disturb(self):
        """Deletes, new actors in their place, purges; the restart in the middle."""
        client = Client(self.service.urls[0])
        chance = random.Random(f"{self.arguments.seed} disturb")
        half = self.arguments.duration / 2
        restarted = False
        while (now := time.monotonic() - self.began) < self.arguments.duration:
            if now >= half and not restarted:
                restarted = True
                self.say(f"{now:5.0f} s: the service is started again")
                self.service.restart_worker(self.arguments.slots)
                self.say(f"{time.monotonic() - self.began:5.0f} s: it is there")
            actor = chance.choice(self.actors)
            if chance.random() < 0.3:
                self.until_answered(client, actor, "DELETE", f"/v3/actors/{actor.id}/messages")
            else:
                self.replace(client, actor)
            for _ in range(20):
                self.seen.update(entry.name for entry in entries(self.service.root / "containers"))
                time.sleep(min(5, self.arguments.duration / 20) / 20)

    def until_answered(self, client, actor, method, path):
        """What nobody answers while the service is started again is asked again."""
        for _ in range(200):
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _, text = client.request(actor.token, method, path)
                if status < 500:
                    return status, text
            time.sleep(0.3)
        raise RuntimeError(f"{method} {path}: no answer for a minute")

    def replace(self, client, actor):
        """Deletes an actor, whatever it is doing, and makes one like it."""
        status, text = self.until_answered(client, actor, "DELETE", f"/v3/actors/{actor.id}")
        # Refused where an earlier answer was lost.
        if status not in (200, 400, 404):
            self.failures.append(f"a deletion: {status} {text[:200]}")
        new = Actor(actor.number, actor.token, actor.kind)
        for _ in range(200):
            try:
                self.register(client, new)
                break
            except (OSError, http.client.HTTPException):
                # It may be there all the same.
                self.surplus += 1
                time.sleep(0.3)
        with self.lock:
            self.deleted.append(actor.id)
            self.actors[actor.number] = new

    def run(self):
        self.prepare()
        before = self.inventory()
        self.say(f"{self.arguments.rate:g} messages/s of {USERS} users over {ACTORS} actors for {self.arguments.duration:g} s; seed {self.arguments.seed}")
        self.next, self.began = 0, time.monotonic()
        senders = [threading.Thread(target=self.send, daemon=True) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        self.disturb()
        self.stopping.set()
        for sender in senders:
            sender.join(120)
        self.say("no more messages; waiting for what was accepted")
        self.settle()
        self.check_executions()
        self.check_inventory(before)
        self.figures()

    # Afterwards.

    def settle(self):
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            open_ = int(self.service.sql("select count(*) from executions where status in ('SUBMITTED', 'RUNNING')")[0][0])
            if not open_:
                return
            if time.monotonic() > deadline:
                self.failures.append(f"{open_} executions have not ended after {SETTLE_SECONDS} s")
                return
            time.sleep(0.5)

    def check_executions(self):
        rows = {row[0]: row for row in self.service.sql("select id, actor_id, status, outcome, attempt from executions")}
        gone = set(self.deleted)
        accepted = [post for post in self.posts if post.outcome == "accepted"]
        ids = collections.Counter(post.execution for post in accepted)
        self.failures += [f"execution {id} was acknowledged {count} times" for id, count in ids.items() if count > 1]
        for post in accepted:
            row = rows.get(post.execution)
            if row is None:
                if post.id not in gone:
                    self.failures.append(f"accepted and not there: {post}")
            elif row[2] not in ("COMPLETE", "ERROR"):
                self.failures.append(f"accepted and not settled: {post} {row}")
        # Each that nobody acknowledged is one that somebody lost the answer of.
        known = set(ids)
        unknown = sum(post.outcome == "unknown" for post in self.posts)
        surplus = [id for id in rows if id not in known]
        if len(surplus) > unknown:
            self.failures.append(f"{len(surplus)} executions that nobody sent, with {unknown} answers lost")
        refused = [post for post in self.posts if post.outcome == "refused" and post.id not in gone]
        self.failures += [f"refused: {post}" for post in refused[:5]]
        self.failures += [f"{status} for a halt" for status in self.halts if status not in (200, 400, 404)]
        self.outcomes = collections.Counter(row[3] for row in rows.values())
        for outcome in ("failed", "could_not_start", "lost", "out_of_memory", "timed_out"):
            if self.outcomes[outcome]:
                self.failures.append(f"{self.outcomes[outcome]} executions ended as {outcome}")
        # Results of those that ran to their end: as many as they sent.
        live = {actor.id for actor in self.actors if actor.kind == "results"}
        sent = {row[0] for row in rows.values() if row[1] in live and row[3] == "succeeded"}
        kept = {row[0]: int(row[1]) for row in self.service.sql("select execution_id, count(*) from results group by 1")}
        # Old ones expire.
        wrong = [id for id in sent if id in kept and kept[id] != 3]
        self.failures += [f"execution {id} has {kept[id]} results instead of 3" for id in wrong[:5]]
        if sent and not kept:
            self.failures.append("no result was kept")

    def check_rows(self):
        """What a deleted actor had, and what nobody holds any more."""
        for table in ("executions", "workers", "aliases", "nonces", "revisions"):
            for (count,) in self.service.sql(f"select count(*) from {table} where actor_id is not null and actor_id not in (select id from actors)"):
                if int(count):
                    yield f"{count} rows of {table} are of no actor"
        for (count,) in self.service.sql("select count(*) from permissions where kind = 'actor' and object not in (select id from actors)"):
            if int(count):
                yield f"{count} permissions are of no actor"
        for table in ("messages", "log_chunks", "results"):
            for (count,) in self.service.sql(f"select count(*) from {table} where execution_id not in (select id from executions)"):
                if int(count):
                    yield f"{count} rows of {table} are of no execution"
        for (count,) in self.service.sql("select count(*) from actors"):
            if not ACTORS <= int(count) <= ACTORS + self.surplus:
                yield f"there are {count} actors instead of {ACTORS}"
        for (count,) in self.service.sql("select count(*) from workers where status in ('BUSY', 'SHUTDOWN_REQUESTED')"):
            if int(count):
                yield f"{count} workers are busy with nothing"

    def inventory(self):
        """What may not grow, by name; waits until it stands still."""
        pids = [process.pid for process in self.service.processes.values()]
        found = {"descriptors": 0, "threads": 0, "resident MB": 0}
        descendants = set(pids)
        for process in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
            with contextlib.suppress(OSError, IndexError):
                parent = int(pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent in descendants:
                    descendants.add(process)
        for process in descendants:
            with contextlib.suppress(OSError):
                found["descriptors"] += len(os.listdir(f"/proc/{process}/fd"))
                status = pathlib.Path(f"/proc/{process}/status").read_text()
                values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                found["threads"] += int(values["Threads"])
                found["resident MB"] += int(values.get("VmRSS", "0 kB").split()[0]) >> 10
        found["processes"] = len(descendants)
        root = self.service.root
        found["containers"] = sum(1 for _ in entries(root / "containers"))
        found["leases"] = sum(1 for one in entries(root / "network" / BRIDGE) if one.is_symlink())
        found["files to remove"] = sum(1 for name in ("trash", "tmp") for _ in entries(root / name))
        found["interfaces"] = sum(1 for _ in entries(pathlib.Path(f"/sys/class/net/{BRIDGE}/brif")))
        found["mounts"] = sum(str(root) in line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())
        found["control groups"] = len(self.control_groups())
        found["files"] = sum(len(files) for place, _, files in os.walk(root) if "/layers/" not in place)
        return found

    def control_groups(self):
        """Those of containers that were seen: they have no other trace of us."""
        ours = set()
        for tree in [pathlib.Path("/sys/fs/cgroup"), *entries(pathlib.Path("/sys/fs/cgroup"))]:
            ours.update(str(group) for group in entries(tree / "abax") if group.is_dir() and group.name in self.seen)
        return ours

    def check_inventory(self, before):
        # What takes long to remove is removed when nobody waits for it.
        deadline = time.monotonic() + 30
        allowed = {"descriptors": 24, "threads": 24, "processes": 0, "files": 4, "resident MB": 400}
        while True:
            after = self.inventory()
            grown = [f"{name}: {before[name]} before, {after[name]} after" for name in after if after[name] > before[name] + allowed.get(name, 0)]
            grown += list(self.check_rows())
            if not grown or time.monotonic() > deadline:
                break
            time.sleep(1)
        self.failures += [f"left: {finding}" for finding in grown]
        self.say("before: " + ", ".join(f"{name} {value}" for name, value in before.items()))
        self.say("after:  " + ", ".join(f"{name} {value}" for name, value in after.items()))

    def figures(self):
        outcomes = collections.Counter(post.outcome for post in self.posts)
        kinds = collections.Counter(post.kind for post in self.posts if post.outcome == "accepted")
        rate = len(self.posts) / self.arguments.duration
        self.say(f"messages: {dict(outcomes)}, {rate:.1f} a second; accepted by kind: {dict(kinds)}")
        self.say(f"executions that are there: {dict(self.outcomes)}")
        self.say(f"{len(self.deleted)} actors deleted, {len(self.halts)} halts")
        took = sorted(post.took for post in self.posts if post.outcome == "accepted" and post.kind != "synchronous")
        if took:
            self.say(f"accepted in: p50 {1000 * took[len(took) // 2]:.1f} ms, p99 {1000 * took[len(took) * 99 // 100]:.1f} ms, longest {1000 * took[-1]:.0f} ms")
        ended = [row[0] for row in self.service.sql("select stored_us - accepted_us from executions where outcome = 'succeeded'")]
        ended = sorted(int(value) for value in ended if value not in (None, ""))
        if ended:
            self.say(f"ended after: p50 {ended[len(ended) // 2] / 1000:.0f} ms, p99 {ended[len(ended) * 99 // 100] / 1000:.0f} ms")


def execution_of(headers, text):
    """The execution that an answer tells of, in whichever way."""
    if "X-Execution-Id" in headers:
        return headers["X-Execution-Id"]
    with contextlib.suppress(ValueError, AttributeError):
        envelope = json.loads(text)
        if envelope["result"]:
            return envelope["result"]["execution_id"]
        told = re.match(r"Execution (\w+) ", envelope["message"])
        return told[1] if told else ""
    return ""


def entries(directory):
    with contextlib.suppress(OSError):
        yield from directory.iterdir()


def import_work(service, work, program):
    rootfs = work / "work"
    rootfs.mkdir()
    shutil.copy(program, rootfs / "work")
    subprocess.run(["tar", "-C", rootfs, "-cf", work / "work.tar", "."], check=True)
    service.abax_command("import", "--change", 'CMD ["/work"]', work / "work.tar", "work")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("abax", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--duration", type=float, default=600)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--slots", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--shape", choices=["embedded", "cluster"], default="embedded")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="keep the logs where all held, too")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(10**6)
    begin = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - begin:6.1f}] {text}", flush=True)

    # Whatever stops this, the servers and their data go.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    os.environ.update(ABAX_SERVICE_BRIDGE=BRIDGE, ABAX_SERVICE_SUBNET=SUBNET)
    shape = {"embedded": load.Embedded, "cluster": load.Cluster}[arguments.shape]
    work = pathlib.Path(tempfile.mkdtemp(prefix="abax-mixed-", dir="/var/tmp"))
    work.chmod(0o755)
    failures = []
    with contextlib.ExitStack() as cleanup:
        load.make_rootfs(work)
        options = argparse.Namespace(abax=arguments.abax, load=arguments.abax, seconds=0)
        with shape(options, work, cleanup) as service:
            service.restart_worker(arguments.slots)
            import_work(service, work, arguments.work)
            run = Run(arguments, service, say)
            try:
                run.run()
            except Exception as error:
                run.failures.append(f"the run itself: {type(error).__name__}: {error}")
                import traceback

                traceback.print_exc()
            failures = run.failures
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
    for failure in failures[:20]:
        print(f"\nFAILED {failure}", file=sys.stderr)
    if failures:
        print(f"\n{len(failures)} failures; seed {arguments.seed}; logs and data: {work}", file=sys.stderr)
        return 1
    say(f"all held; seed {arguments.seed}")
    if not arguments.keep:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
