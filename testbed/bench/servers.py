"""PostgreSQL and RabbitMQ from Debian's packages, for the benchmarks.

Each runs on free loopback ports in a directory of its own and ends with the
block that it was entered in. Needs root.
"""

import glob
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def give_up(what, log):
    raise RuntimeError(f"{what} did not become ready: {pathlib.Path(log).read_text(errors='replace')[-600:]}")


class Server:
    """A process group that is killed at the end."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.log = self.directory / "log"
        self.process = None

    def spawn(self, command, **options):
        with self.log.open("a") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()


class Postgres(Server):
    """A database server with one database and one user, both `abax`."""

    def start(self):
        programs = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        self.psql, self.port = programs / "psql", free_port()
        user = pwd.getpwnam("postgres")
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
        data = self.directory / "data"
        initdb = [programs / "initdb", "--auth=trust", "--username=abax", "--encoding=UTF8", "--locale=C", "--pgdata", data]
        subprocess.run([*as_user, *initdb], check=True, capture_output=True)
        settings = ["-c", f"unix_socket_directories={self.directory}", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
        self.spawn([*as_user, programs / "postgres", "-D", data, "-p", str(self.port), *settings])
        self.url = f"postgres://abax@127.0.0.1:{self.port}/abax"
        deadline = time.monotonic() + 30
        while subprocess.run([programs / "createdb", *self.where(), "abax"], capture_output=True).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                give_up("PostgreSQL", self.log)
            time.sleep(0.1)

    def where(self):
        return ["--host", "127.0.0.1", "--port", str(self.port), "--username", "abax"]

    def sql(self, text):
        """Runs a statement; its rows, as lists of texts."""
        command = [self.psql, *self.where(), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\x1f", "--set=ON_ERROR_STOP=1", "--command", text, "abax"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return [line.split("\x1f") for line in done.stdout.splitlines() if line]


class RabbitMq(Server):
    """A broker with its user `guest`."""

    def start(self):
        self.port, self.names = free_port(), free_port()
        home = self.directory / "home"
        home.mkdir()
        (self.directory / "plugins").write_text("[].\n")
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"abax{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(self.names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
        }
        # Debian's wrapper changes to the user rabbitmq, which must reach all of it.
        user = pwd.getpwnam("rabbitmq")
        for path in (self.directory, home, self.directory / "plugins", self.log):
            if path.exists():
                os.chown(path, user.pw_uid, user.pw_gid)
        command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--", "/usr/lib/rabbitmq/bin/rabbitmq-server"]
        self.spawn(command, env=environment)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2f"
        deadline = time.monotonic() + 60
        while "Server startup complete" not in self.log.read_text(errors="replace") and not self.listens():
            if time.monotonic() > deadline or self.process.poll() is not None:
                give_up("RabbitMQ", self.log)
            time.sleep(0.2)

    def kill(self):
        super().kill()
        # The name server of Erlang leaves the group, and stays while a node is registered.
        for _ in range(50):
            if subprocess.run(["epmd", "-port", str(self.names), "-kill"], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)

    def listens(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False
