"""PostgreSQL and RabbitMQ for the benchmarks.

Each runs on free loopback ports in a directory of its own and ends with the
block that it was entered in, or with this program. Needs root.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parents[1] / "python"))

import packaged

READY_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process group that is killed at the end."""

    def __init__(self, directory, password):
        self.directory, self.password = pathlib.Path(directory), password
        self.directory.mkdir(parents=True)
        self.log = self.directory / "log"
        self.process = None

    def __enter__(self):
        try:
            self.start()
            deadline = time.monotonic() + READY_SECONDS
            while not self.is_ready():
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"{type(self).__name__} did not become ready: {self.log.read_text(errors='replace')[-600:]}")
                time.sleep(0.1)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def spawn(self, command, user=(), **options):
        command = ["setpriv", "--pdeathsig", "KILL", *user, "--", *map(str, command)]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/", **options)

    def kill(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()


class Postgres(Server):
    """With an empty database `abax`."""

    def start(self):
        self.server = packaged.Postgres(self.directory, "127.0.0.1", free_port(), self.password)
        self.server.make()
        self.spawn(self.server.command(max_connections=200), packaged.as_user(self.server.user))
        self.url = self.server.url("abax")

    def is_ready(self):
        return self.server.psql("create database abax", "postgres", check=False) is not None

    def sql(self, text):
        """Runs a statement; its rows, as lists of texts."""
        return [line.split("\t") for line in self.server.psql(text, "abax").splitlines()]


class RabbitMq(Server):
    def start(self):
        ports = {"RABBITMQ_DIST_PORT": free_port(), "ERL_EPMD_PORT": free_port()}
        self.server = packaged.RabbitMq(self.directory, "127.0.0.1", free_port(), self.password, **ports)
        self.server.make()
        self.spawn(self.server.command(), env={"PATH": os.environ["PATH"], **self.server.environment()})
        self.url = self.server.url()

    def is_ready(self):
        return self.server.ready in self.log.read_text(errors="replace")
