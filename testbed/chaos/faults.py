"""What goes wrong, and when: a schedule made of a seed alone.

Every kind of fault is a card; the deck is shuffled, dealt to the end, and
shuffled again, so that a short run has met each kind about once.
"""

import dataclasses
import random

# Between the beginnings of two faults, on average; they may overlap.
EVERY_SECONDS = 6.0


@dataclasses.dataclass
class Fault:
    """From `at` on, for `seconds`; both in seconds after the load began."""

    at: float
    seconds: float
    kind: str
    target: str
    peer: str | None = None

    def __str__(self):
        peer = f" and {self.peer}" if self.peer else ""
        return f"{self.kind} {self.target}{peer} for {self.seconds:.1f} s"


class Cards:
    """The kinds of faults, each by a method's name: it begins the fault, and
    gives back what ends it; None where it makes no sense now."""

    def __init__(self, world):
        self.world = world

    # Processes that die.

    def kill(self, fault):
        """All processes of a host at once."""
        server = self.world.server(fault.target)
        if not server.runs():
            return None
        server.kill()
        return server.start

    def kill_main(self, fault):
        """The worker; its launcher has to notice by itself."""
        server = self.world.server(fault.target)
        if not server.runs():
            return None
        server.kill("main")
        return server.start

    def kill_launcher(self, fault):
        """The launcher and with it every container; the supervisor does the rest."""
        return (lambda: None) if self.world.server(fault.target).kill_launcher() else None

    def forget(self, fault):
        """The broker comes back without anything that it had."""
        server = self.world.server(fault.target)
        if not server.runs():
            return None
        server.kill()
        server.forget()
        return server.start

    def stop(self, fault):
        """In good order, as for an upgrade."""
        server = self.world.server(fault.target)
        if not server.runs() or server.suspended:
            return None
        # The next one is started at once where it ends by itself.
        server.signal(server.goodbye[0], "main")
        return lambda: None

    # Processes that stand still.

    def suspend(self, fault):
        """Every process of the host: a machine that pauses."""
        return self._suspend(fault, "all")

    def suspend_main(self, fault):
        """The worker, while its containers go on."""
        return self._suspend(fault, "main")

    def _suspend(self, fault, which):
        server = self.world.server(fault.target)
        if not server.runs() or server.suspended:
            return None
        server.suspend(which)
        return server.resume

    # Hosts that do not hear each other.

    def cut(self, fault):
        """Both ways."""
        self.world.network.cut(fault.target, fault.peer)
        self.world.network.cut(fault.peer, fault.target)

        def mend():
            self.world.network.mend(fault.target, fault.peer)
            self.world.network.mend(fault.peer, fault.target)

        return mend

    def cut_one_way(self, fault):
        """What the target sends does not reach its peer."""
        self.world.network.cut(fault.target, fault.peer)
        return lambda: self.world.network.mend(fault.target, fault.peer)

    def isolate(self, fault):
        """From all servers."""
        others = [server.name for server in self.world.servers if server.name != fault.target]
        for other in others:
            self.world.network.cut(fault.target, other)
            self.world.network.cut(other, fault.target)

        def mend():
            for other in others:
                self.world.network.mend(fault.target, other)
                self.world.network.mend(other, fault.target)

        return mend

    # Disks that are full.

    def fill(self, fault):
        server = self.world.server(fault.target)
        server.fill_disk()

        def free():
            server.free_disk()
            if server is self.world.broker and server.runs():
                # RabbitMQ 3.10 goes on without its quorum queues, whose files
                # it could not write: a person would start it again.
                server.kill()
                server.start()

        return free


def schedule(seed, duration, apis, workers, lease):
    """The faults of a run, in their order. They end before `duration` does."""
    chance = random.Random(f"{seed} faults")
    short, brief = (1.0, 6.0), (3.0, 12.0)
    # Until long after what was claimed is somebody else's.
    asleep = (lease * 1.3, lease * 2.5)
    any_api, any_worker = (lambda: chance.choice(apis)), (lambda: chance.choice(workers))
    database, broker = (lambda: "database"), (lambda: "broker")
    nobody = lambda: None
    kinds = [
        ("kill", any_api, nobody, short),
        ("kill", any_worker, nobody, short),
        ("kill_main", any_worker, nobody, short),
        ("kill_launcher", any_worker, nobody, short),
        ("kill", broker, nobody, short),
        ("forget", broker, nobody, short),
        ("kill", database, nobody, short),
        ("stop", any_worker, nobody, short),
        ("stop", any_api, nobody, short),
        ("suspend", any_worker, nobody, asleep),
        ("suspend_main", any_worker, nobody, asleep),
        ("suspend", any_api, nobody, asleep),
        ("suspend", database, nobody, brief),
        ("suspend", broker, nobody, brief),
        ("cut", any_worker, broker, brief),
        ("cut", any_worker, database, asleep),
        ("cut_one_way", any_worker, database, asleep),
        ("cut_one_way", database, any_worker, asleep),
        ("cut_one_way", any_worker, broker, brief),
        ("cut_one_way", broker, any_worker, brief),
        ("cut", any_worker, any_api, brief),
        ("cut", any_api, database, brief),
        ("cut_one_way", database, any_api, brief),
        ("cut", any_api, broker, brief),
        ("isolate", any_worker, nobody, asleep),
        ("fill", any_worker, nobody, brief),
        ("fill", database, nobody, brief),
        ("fill", broker, nobody, brief),
    ]
    faults, at = [], 3.0
    while True:
        deck = kinds.copy()
        chance.shuffle(deck)
        for kind, target, peer, (least, most) in deck:
            fault = Fault(at, chance.uniform(least, most), kind, target(), peer())
            if at > duration - 4:
                return faults
            if at + fault.seconds > duration - 2:
                continue
            faults.append(fault)
            at += chance.uniform(0.4, 1.6) * EVERY_SECONDS
