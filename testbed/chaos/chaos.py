#!/usr/bin/env python3
"""A site of several hosts under load, while everything fails at random.

    chaos.py ABAX EFFECT [--duration 1800] [--seed N] [--queue rabbitmq|database] [--keep]

ABAX is the program under test, EFFECT the compiled effect.c; with OLD, an earlier
program, some of the processes are of it, as during an upgrade. PostgreSQL,
RabbitMQ, two `abax api` and three `abax worker` run on hosts of their own
(network namespaces of this machine); clients send messages whose containers
tell a collector. For `--duration` seconds a schedule made of the seed kills,
stops, cuts off and fills; then all is healed, and when nothing waits any more
store, logs, states, ledger and effects must agree, and nothing may be left.

Exits with 0 if all held, else prints what did not, with the evidence and the
seed. A run that is stopped by a signal leaves its logs and nothing else, and so
does the next one after a run that was killed. Needs root, and what
testbed/install.sh installs.
"""

import argparse
import collections
import contextlib
import fcntl
import os
import pathlib
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time

import checks
import faults
import servers
from load import COLLECTOR_PORT, Actor, Api, Collector, Load
from network import Network, enter, run

APIS = ["api1", "api2"]
WORKERS = ["worker1", "worker2", "worker3"]
# Those that run the earlier program, where one is given.
STILL_TO_UPGRADE = ["api2", "worker2"]
SLOTS = 4
LEASE_SECONDS = 6
MAX_ATTEMPTS = 5
# All that was accepted must have ended this long after the last fault.
SETTLE_SECONDS = 180
SIGNING_KEY = "signing.key"
WORK = "abax-chaos-"
STOPS = (signal.SIGINT, signal.SIGTERM)


class World:
    """All hosts and what runs on them."""

    def __init__(self, program, before, work, say, with_broker):
        self.work, self.say, self.with_broker = work, say, with_broker
        programs = {name: before or program for name in STILL_TO_UPGRADE}
        self.network = Network(["load", "database", "broker", *APIS, *WORKERS])
        self.database = servers.Postgres(self.network, work, say)
        self.broker = servers.RabbitMq(self.network, work, say)
        self.apis = [servers.Api(name, self.network, work, say, programs.get(name, program), self.settings) for name in APIS]
        self.workers = [servers.Worker(name, self.network, work, say, programs.get(name, program), self.settings) for name in WORKERS]
        self.servers = [self.database, self.broker, *self.apis, *self.workers]
        self.containers = set()

    def server(self, name):
        return next(server for server in self.servers if server.name == name)

    def settings(self, server):
        """The file of one process. Executions of each worker know one API address."""
        config = self.work / "config"
        secrets_by_name = {SIGNING_KEY: self.key, "database": self.database.password, "broker": self.broker.password}
        for name, secret in secrets_by_name.items():
            (config / name).write_text(secret)
            (config / name).chmod(0o600)
        api = server if server in self.apis else self.apis[self.workers.index(server) % len(self.apis)]
        # Without one, the database is the queue as well.
        queue = f'[queue]\nurl = "{self.broker.url()}"\npassword_file = "{config}/broker"' if self.with_broker else ""
        return f"""root = "{server.root}"
[database]
url = "{self.database.url()}"
password_file = "{config}/database"
{queue}
[service]
lease_seconds = {LEASE_SECONDS}
max_attempts = {MAX_ATTEMPTS}
[api]
listen = "{server.address}:{servers.Api.port}"
public_url = "http://{api.address}:{servers.Api.port}"
signing_key_file = "{config}/{SIGNING_KEY}"
[worker]
name = "{server.name}"
slots = {SLOTS}
drain_seconds = 5
[log]
level = "info,lapin=off"
"""

    def start(self, effect):
        self.key = secrets.token_hex(32)
        self.network.create()
        for server in self.servers:
            server.initialize()
        self.database.start()
        self.broker.start()
        self.database.wait_until_ready()
        self.database.psql(f"create database {servers.DATABASE}", "postgres")
        self.apis[0].abax("migrate")
        self.database.psql(checks.AUDIT)
        rootfs = self.work / "rootfs"
        rootfs.mkdir()
        shutil.copy(effect, rootfs / "effect")
        run("tar", "-C", rootfs, "-cf", self.work / "rootfs.tar", ".")
        for worker in self.workers:
            worker.abax("import", "--change", 'CMD ["/effect"]', self.work / "rootfs.tar", "effect")
        self.broker.wait_until_ready()
        for server in [*self.apis, *self.workers]:
            server.start()
        for server in self.apis:
            server.wait_until_ready()

    def tick(self):
        for server in self.servers:
            server.supervise()
        self.see_containers()

    def see_containers(self):
        for worker in self.workers:
            with contextlib.suppress(OSError):
                self.containers.update(os.listdir(worker.root / "containers"))

    def stop(self):
        """In good order, the other way round. Yields what did not end well."""
        for server in [*self.workers, *self.apis]:
            code = server.stop()
            if code not in (0, None):
                yield f"{server.name} ended with {code} after SIGTERM; its log ends:\n{server.last_words()}"

    def remove(self):
        servers.kill_descendants()
        remove_hosts(self.network)


class Run:
    def __init__(self, arguments, world, say):
        self.arguments, self.world, self.say = arguments, world, say
        self.collector = Collector()
        self.failures = []

    def actors(self):
        """Two tenants, each with stateless and stateful actors, one of them busy."""
        actors = []
        for tenant, user in (("ADA", "ada"), ("BOB", "bob")):
            token = self.world.apis[0].abax("token", "--tenant", tenant, "--user", user, "--role", "user").strip()
            own = {"tenant": tenant, "token": token}
            actors += [
                Actor(f"{user}-busy", stateful=False, seconds=0.5, milliseconds=2 * LEASE_SECONDS * 1000, **own),
                Actor(f"{user}-quiet", stateful=False, seconds=2.0, milliseconds=2000, **own),
                Actor(f"{user}-counter", stateful=True, seconds=2.0, milliseconds=2000, **own),
                Actor(f"{user}-slow-counter", stateful=True, seconds=6.0, milliseconds=2 * LEASE_SECONDS * 1000, **own),
            ]
        return actors

    def register(self, actor, api):
        environment = {
            "CHAOS_COLLECTOR": f"{self.world.network.addresses['load']}:{COLLECTOR_PORT}",
            "CHAOS_APIS": " ".join(f"{api.address}:{api.port}" for api in self.world.apis),
            **({"CHAOS_STATEFUL": "1"} if actor.stateful else {}),
        }
        body = {"image": "effect", "name": actor.name, "stateless": not actor.stateful, "token": True, "default_environment": environment}
        status, answer = api.request(actor.token, "POST", "/actors/v2", body)
        if status not in (200, 201):
            raise RuntimeError(f"could not register {actor.name}: {status} {answer}")
        actor.id = answer["result"]["id"]

    def run(self):
        world, seed = self.world, self.arguments.seed
        world.start(self.arguments.effect)
        enter("load")
        self.collector.start(world.network.addresses["load"])
        apis = [Api(api.address, api.port) for api in world.apis]
        actors = self.actors()
        for actor in actors:
            self.register(actor, apis[0])
        self.load = Load(apis, actors, seed, self.say)
        schedule = faults.schedule(seed, self.arguments.duration, APIS, WORKERS, LEASE_SECONDS)
        self.say(f"{len(schedule)} faults in {self.arguments.duration} s; seed {seed}")
        self.load.start()
        self.break_things(schedule)
        self.heal()
        self.say("healed; waiting for what was accepted")
        self.load.stop()
        if self.settle():
            self.probe(apis, actors)
        self.check(apis)

    def break_things(self, schedule):
        cards = faults.Cards(self.world)
        begin = time.monotonic()
        pending, active = collections.deque(schedule), []
        while time.monotonic() - begin < self.arguments.duration:
            now = time.monotonic() - begin
            for fault, end in list(active):
                if now >= fault.at + fault.seconds:
                    active.remove((fault, end))
                    self.say(f"{now:6.1f} s: over: {fault}")
                    end()
            while pending and now >= pending[0].at:
                fault = pending.popleft()
                end = getattr(cards, fault.kind)(fault)
                self.say(f"{now:6.1f} s: {fault}" + ("" if end else ": not now"))
                if end:
                    active.append((fault, end))
            self.world.tick()
            time.sleep(0.1)
        for _, end in active:
            end()

    def heal(self):
        world = self.world
        world.network.mend_all()
        for server in world.servers:
            server.free_disk()
            server.resume()
            if not server.runs():
                server.start()

    def settle(self):
        """Waits until nothing waits or runs; says what does if that takes too long."""
        deadline = time.monotonic() + SETTLE_SECONDS
        last = None
        while time.monotonic() < deadline:
            self.world.tick()
            counts = self.world.database.psql("select status, count(*) from executions where status in ('SUBMITTED', 'RUNNING') group by 1 order by 1", check=False)
            if counts == "":
                return True
            if counts != last and counts is not None:
                self.say(f"still there: {counts.replace(chr(9), ' ').replace(chr(10), ', ')}")
                last = counts
            time.sleep(1)
        return False

    def probe(self, apis, actors):
        """Everything works again: each actor's next message succeeds by itself."""
        for number, actor in enumerate(actors):
            self.load.post_until_accepted(number, actor, 10**6, 0)
        if not self.settle():
            return
        tags = [f"{actor.name}-{10**6}-" for actor in actors]
        for row in checks.rows(self.world.database, "select id, outcome, reason, body from executions join messages on execution_id = id where accepted_us > 0 and outcome <> 'succeeded'"):
            if any(tag in row["body"] for tag in tags):
                self.failures.append(f"after all was healed, an execution did not succeed: {row}")

    def check(self, apis):
        world = self.world
        evidence = checks.Evidence(world.database, self.load, self.collector, apis, MAX_ATTEMPTS)
        named = {
            "what is left in the store": checks.database_rows(world.database),
            "accepted messages": checks.accepted_messages(evidence),
            "settlements": checks.settlements(evidence),
            "one at a time": checks.one_at_a_time(evidence),
            "outcomes": checks.outcomes(evidence),
            "winners": checks.winners(evidence),
            "counters": checks.counters(evidence),
            "panics": checks.panics(world),
            "the doctor": checks.doctor(world),
        }
        for name, findings in named.items():
            found = list(findings)
            self.say(f"check: {name}: " + (f"{len(found)} FAILED" if found else "holds"))
            self.failures += [f"{name}: {finding}" for finding in found]
        self.summarize(evidence)
        self.check_leftovers("while the workers run")
        self.failures += world.stop()
        self.failures += checks.goodbyes(world.database)
        self.check_leftovers("after the workers stopped")

    def check_leftovers(self, when):
        # What takes long to remove is removed when nobody waits for it.
        deadline = time.monotonic() + 20
        while found := list(checks.leftovers(self.world, self.world.containers)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        self.say(f"check: nothing is left {when}: " + (f"{len(found)} FAILED" if found else f"holds, after {len(self.world.containers)} containers that were seen"))
        self.failures += [f"left {when}: {finding}" for finding in found]

    def summarize(self, evidence):
        posts = collections.Counter(post.outcome for post in self.load.posts)
        outcomes = collections.Counter(execution["outcome"] for execution in evidence.executions.values())
        again = sum(execution["epoch"] > 1 for execution in evidence.executions.values())
        doubled = sum(len({effect.nonce for effect in effects}) > 1 for effects in self.collector.effects.values())
        self.say(f"POSTs: {dict(posts)}; executions: {dict(outcomes)}; {again} were claimed again, {doubled} had effects more than once")
        reasons = collections.Counter((e["outcome"], e["reason"]) for e in evidence.executions.values() if e["outcome"] not in ("succeeded", "cancelled"))
        for (outcome, reason), count in reasons.most_common(12):
            self.say(f"  {count} × {outcome}: {reason}")
        surprises = {server.name: server.surprises for server in self.world.servers if server.surprises}
        self.say(f"ended by themselves: {surprises}")
        errors = collections.Counter(
            # Without its time and the ids of its spans.
            line.split("ERROR", 1)[1].rsplit("}: ", 1)[-1].strip()[:150]
            for server in [*self.world.apis, *self.world.workers]
            for line in server.log_path.read_text(errors="replace").splitlines()
            if " ERROR " in line
        )
        for line, count in errors.most_common(8):
            self.say(f"  {count} × error: {line}")


def remove_hosts(network):
    """For whoever has the lock: also those of runs that were killed. Logs stay."""
    network.remove()
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith(f"/var/tmp/{WORK}"):
            servers.remove_disk(pathlib.Path(place))


def stop_on_signals(say):
    """They become an exception, so that whatever is there is cleared away. SIGINT
    too, which a shell has ignored for what it starts in the background."""

    def stop(number, _):
        ignore_signals()
        say(f"stopped by {signal.Signals(number).name}")
        raise SystemExit(128 + number)

    for number in STOPS:
        signal.signal(number, stop)


def ignore_signals():
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("abax", type=pathlib.Path)
    parser.add_argument("effect", type=pathlib.Path)
    parser.add_argument("--before", type=pathlib.Path, metavar="OLD", help="an earlier program, for some of the processes")
    parser.add_argument("--duration", type=float, default=1800, help="seconds of load and faults")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--queue", choices=["rabbitmq", "database"], default="rabbitmq")
    parser.add_argument("--keep", action="store_true", help="keep the logs where all held, too")
    arguments = parser.parse_args()
    arguments.abax, arguments.effect = arguments.abax.resolve(), arguments.effect.resolve()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(10**6)
    begin = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - begin:7.1f}] {text}", flush=True)

    stop_on_signals(say)
    # The names of hosts are the machine's: one run at a time.
    lock = open("/run/lock/abax-chaos", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    work = pathlib.Path(tempfile.mkdtemp(prefix=WORK, dir="/var/tmp"))
    # PostgreSQL is not root.
    work.chmod(0o711)
    before = arguments.before and arguments.before.resolve()
    world = World(arguments.abax, before, work, say, arguments.queue == "rabbitmq")
    run_ = Run(arguments, world, say)
    try:
        remove_hosts(world.network)
        say(f"seed {arguments.seed}, logs in {work}/logs")
        run_.run()
    except Exception as error:
        run_.failures.append(f"the test itself: {type(error).__name__}: {error}")
        import traceback

        traceback.print_exc()
    finally:
        ignore_signals()
        world.remove()
    run_.failures += [f"left at the end: {finding}" for finding in checks.namespaces()]
    for failure in run_.failures[:20]:
        print(f"\nFAILED {failure}", file=sys.stderr)
    if run_.failures:
        print(
            f"\n{len(run_.failures)} failures. The same schedule: make chaos SEED={arguments.seed} DURATION={arguments.duration:g}\nlogs: {work}/logs",
            file=sys.stderr,
        )
        return 1
    say(f"all held; seed {arguments.seed}")
    if not arguments.keep:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
