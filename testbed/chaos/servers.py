"""Processes on hosts: what is started, killed, stopped and started again.

Each server has a file system of its own in memory, so that its disk can be
full while the others' are not. A server that ends although it should run is
started again after a moment, as a supervisor would.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parents[1] / "python"))

import packaged
from network import entering, run

DATABASE = "abax"
RESTART_AFTER = 1.0


def descendants(process):
    """The ids of a process and of all that it started, the oldest first."""
    found = [process]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text()
                found.extend(int(child) for child in children.split() if int(child) not in found)
    return found


def send(processes, number):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def lives(process):
    """Whether it is more than a name that its parent has not asked for yet."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def kill_descendants():
    """Ends all that we have started, also what a signal interrupted us in starting."""
    for _ in range(200):
        processes = [process for process in descendants(os.getpid())[1:] if lives(process)]
        if not processes:
            return
        send(processes, signal.SIGKILL)
        time.sleep(0.05)


def control_groups(containers):
    """Those of these containers that are there, in whichever trees."""
    top = pathlib.Path("/sys/fs/cgroup")
    places = [tree / "abax" / container for tree in [top, *top.iterdir()] for container in sorted(containers)]
    return [place for place in places if place.is_dir()]


def remove_disk(directory):
    """Unmounts the disk of a host whose processes were killed, and removes what
    they left elsewhere: segments of shared memory and control groups."""
    with contextlib.suppress(OSError, IndexError):
        segment = (directory / "data/postmaster.pid").read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], capture_output=True)
    containers = []
    with contextlib.suppress(OSError):
        containers = os.listdir(directory / "root/containers")
    # A process that is just ending may still be in one of them.
    for _ in range(50):
        for group in control_groups(containers):
            with contextlib.suppress(OSError):
                group.rmdir()
        subprocess.run(["umount", directory], capture_output=True)
        if not os.path.ismount(directory) and not control_groups(containers):
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", directory], capture_output=True)


class Server:
    """One process of one host. `directory` is its disk; `log` is kept elsewhere."""

    user = None
    # The signal for a stop in good order, and how long that may take.
    goodbye = (signal.SIGTERM, 60)

    def __init__(self, name, network, work, say, disk_bytes):
        self.name, self.network, self.say = name, network, say
        self.address = network.addresses[name]
        self.directory = work / name
        self.log_path = work / "logs" / f"{name}.log"
        self.disk_bytes = disk_bytes
        self.process = None
        self.wanted = False
        self.suspended = []
        self.ended_at = None
        self.surprises = []

    # What a kind of server says of itself.

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {}

    def is_ready(self):
        return True

    # Its life.

    def make_disk(self):
        self.directory.mkdir(parents=True)
        self.log_path.parent.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={self.disk_bytes},mode=755", f"chaos-{self.name}", self.directory)

    def start(self):
        """From the thread that outlives it: the kernel kills it with that."""
        command = [*entering(self.name), "setpriv", "--pdeathsig", "KILL", *(packaged.as_user(self.user) if self.user else []), "--", *map(str, self.command())]
        with open(self.log_path, "ab") as log:
            log.write(f"--- started at {time.strftime('%H:%M:%S')}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env=dict({"PATH": os.environ["PATH"], "RUST_BACKTRACE": "1"}, **self.environment()),
            )
        self.wanted, self.ended_at = True, None

    def wait_until_ready(self, seconds=90):
        deadline = time.monotonic() + seconds
        while not (self.runs() and self.is_ready()):
            if time.monotonic() > deadline or not self.runs():
                raise RuntimeError(f"{self.name} did not become ready; its log ends:\n{self.last_words()}")
            time.sleep(0.1)

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def processes(self):
        return descendants(self.process.pid) if self.runs() else []

    def signal(self, number, which="all"):
        """`which`: all of its processes, or the first one only."""
        processes = self.processes()
        send(processes[:1] if which == "main" else processes, number)

    def kill(self, which="all"):
        """SIGKILL, and no supervisor until `start`."""
        self.wanted = False
        self.suspended = []
        self.signal(signal.SIGKILL, which)
        if self.process:
            self.process.wait()

    def suspend(self, which="all"):
        processes = self.processes()
        self.suspended = processes[:1] if which == "main" else processes
        send(self.suspended, signal.SIGSTOP)

    def resume(self):
        send(self.suspended, signal.SIGCONT)
        self.suspended = []

    def stop(self):
        """In good order; its exit code."""
        number, seconds = self.goodbye
        self.wanted = False
        if not self.runs():
            return None
        self.resume()
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.say(f"{self.name} did not stop within {seconds} s of {number.name}; killed")
            self.kill()
            return -signal.SIGKILL

    def supervise(self):
        """Starts it again where it ended although it should run."""
        if not self.wanted or self.runs():
            return
        now = time.monotonic()
        if self.ended_at is None:
            self.ended_at = now
            code = self.process.returncode
            self.surprises.append(code)
            self.say(f"{self.name} ended by itself with {code}: {self.last_words(1)}")
        elif now - self.ended_at > RESTART_AFTER:
            self.start()

    def last_words(self, lines=20):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(line for line in text.splitlines()[-lines:])

    # Its disk.

    def fill_disk(self):
        """Takes all that is free on its disk, to the last page."""
        with open(self.directory / "ballast", "wb", buffering=0) as file:
            for piece in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while file.write(bytes(piece)):
                        pass

    def free_disk(self):
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "ballast").unlink()


class Postgres(Server):
    user = packaged.Postgres.user
    goodbye = (signal.SIGINT, 30)

    def __init__(self, network, work, say):
        super().__init__("database", network, work, say, 512 << 20)
        self.password = secrets.token_hex(12)
        self.server = packaged.Postgres(self.directory, self.address, 5432, self.password)

    def initialize(self):
        self.make_disk()
        self.server.make("--wal-segsize=4")

    def command(self):
        return self.server.command(
            max_wal_size="64MB", max_connections=200, shared_buffers="64MB", log_min_messages="warning", log_line_prefix="%t [%p] ",
            # A session whose client is gone is noticed, and its locks are given back.
            tcp_keepalives_idle=5, tcp_keepalives_interval=2, tcp_keepalives_count=3, tcp_user_timeout="10s",
        )

    def is_ready(self):
        return self.psql("select 1", "postgres", check=False) == "1"

    def psql(self, sql, database=DATABASE, check=True):
        return self.server.psql(sql, database, entering(self.name), check)

    def url(self):
        return self.server.url(DATABASE)


class RabbitMq(Server):
    goodbye = (signal.SIGTERM, 30)

    def __init__(self, network, work, say):
        super().__init__("broker", network, work, say, 512 << 20)
        self.password = secrets.token_hex(12)
        self.server = packaged.RabbitMq(self.directory, self.address, 5672, self.password)

    def initialize(self):
        self.make_disk()
        self.server.make("raft.wal_max_size_bytes = 16777216", "heartbeat = 10")

    def command(self):
        return self.server.command()

    def environment(self):
        return self.server.environment()

    def is_ready(self):
        text = self.log_path.read_text(errors="replace")
        return self.server.ready in text[text.rfind("--- started at"):]

    def forget(self):
        """Everything that it had: queues, messages, users."""
        shutil.rmtree(self.directory / "mnesia")
        (self.directory / "mnesia").mkdir()

    def url(self):
        return self.server.url()


class Abax(Server):
    """A process of the program under test; `verb` is its command."""

    verb = None

    def __init__(self, name, network, work, say, program, settings, disk_bytes=256 << 20):
        super().__init__(name, network, work, say, disk_bytes)
        self.program, self.settings = program, settings
        self.config = work / "config" / f"{name}.toml"
        self.root = self.directory / "root"

    def initialize(self):
        self.make_disk()
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(self.settings(self))
        self.config.chmod(0o600)

    def command(self):
        return [self.program, "--config", self.config, *self.verb]

    def abax(self, *arguments, **options):
        return run(*entering(self.name), self.program, "--config", self.config, *arguments, **options)


class Api(Abax):
    verb = ["api"]
    port = 8000

    def is_ready(self):
        """It answers that it is ready, as a load balancer would ask."""
        done = subprocess.run([*entering(self.name), "curl", "-sf", "-m", "3", "-o", "/dev/null", f"http://{self.address}:{self.port}/readyz"])
        return done.returncode == 0


class Worker(Abax):
    verb = ["worker"]

    def launcher(self):
        """Its child that makes the containers."""
        children = self.processes()[1:]
        parents = {}
        for child in children:
            with contextlib.suppress(OSError):
                parents[child] = int(pathlib.Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
        return next((child for child, parent in parents.items() if parent == self.process.pid), None)

    def kill_launcher(self):
        launcher = self.launcher()
        if launcher:
            send([launcher], signal.SIGKILL)
        return launcher
