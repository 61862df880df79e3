#!/usr/bin/env python3
"""What the service takes: messages accepted, executions ended, and how that changes with size.

    load.py ABAX LOAD [--seconds 8] [--only embedded|cluster]

ABAX is the release binary, LOAD the load generator (an example of abax-api).
Two shapes are measured: *embedded*, one `abax serve` on SQLite; and *cluster*,
PostgreSQL, RabbitMQ, two `abax api` and one `abax worker`, each a process of its
own, all on this machine. Needs root. The table goes to standard output.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

import servers

ACCEPTING = 32
PAST = 1_000_000
ACTORS = 10_000


class Service:
    """Processes of Abax on one machine, with a client."""

    def __init__(self, arguments, work, cleanup):
        self.abax, self.load = arguments.abax.resolve(), arguments.load.resolve()
        self.seconds, self.work, self.cleanup = arguments.seconds, work, cleanup
        self.urls, self.token, self.processes = [], None, {}

    def abax_command(self, *command, **options):
        done = subprocess.run([self.abax, *map(str, command)], capture_output=True, text=True, env=self.environment, **options)
        if done.returncode:
            raise RuntimeError(f"abax {command[0]}: exit {done.returncode}: {done.stderr[-400:].strip()}")
        return done.stdout.strip()

    def start(self, name, *command):
        log = self.work / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen([self.abax, *map(str, command)], env=self.environment, stdout=output, stderr=output)
        self.processes[name] = process
        self.cleanup.callback(self.stop, name)
        return process, log

    def stop(self, name):
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_until_ready(self, url, process, log):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                    return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"no service at {url}: {log.read_text()[-400:]}")

    def request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.urls[0] + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["result"]

    def actor(self, image, **settings):
        return self.request("POST", "/actors/v2", {"image": image, "maxWorkers": 64, **settings})["id"]

    def run(self, actor, mode, connections):
        command = [self.load, self.token, actor, mode, connections, self.seconds, *self.urls]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=self.seconds + 120)
        if done.returncode:
            raise RuntimeError(f"load: {done.stderr[-400:].strip()}")
        return json.loads(done.stdout)

    def clone(self, table, id, count):
        """`count` more rows like the one with `id`; written past the service, as if long ago."""
        columns = [column for column in self.columns(table) if column != "sequence"]
        values = ["'past-' || n.n" if column == "id" else f"t.{column}" for column in columns]
        self.sql(
            f"with recursive n (n) as (select 1 union all select n + 1 from n where n < {count}) "
            f"insert into {table} ({', '.join(columns)}) select {', '.join(values)} from {table} t, n where t.id = '{id}'"
        )

    def measure(self, table):
        """Every case of this shape, as rows of the table."""
        # The host takes nothing, so the messages wait: only their acceptance is measured.
        self.cordon()
        waiting = self.actor("busybox")
        table.add(f"accepted, {self.name}", self.run(waiting, "accept", ACCEPTING))
        self.request("DELETE", f"/actors/v2/{waiting}")
        self.abax_command("admin", "uncordon", self.host)

        actor = self.actor("busybox")
        self.run(actor, "result", 1)
        for slots in (1, 2, 4):
            self.restart_worker(slots)
            self.run(actor, "result", 1)
            table.add(f"ended, {self.name}, slots {slots}, as many senders", self.run(actor, "result", slots))
        table.add(f"ended, {self.name}, slots 4, 16 senders", self.run(actor, "result", 16))

        self.clone("actors", actor, ACTORS)
        table.add(f"ended, {self.name}, slots 4, {ACTORS:,} actors", self.run(actor, "result", 4))
        past = self.request("POST", f"/actors/v2/{actor}/messages?_abaco_synchronous=false", {"message": "past"})["executionId"]
        self.wait_for(actor, past)
        self.clone("executions", past, PAST)
        table.add(f"ended, {self.name}, slots 4, {PAST:,} past executions", self.run(actor, "result", 4))
        table.add(f"accepted while 4 run, {self.name}, {PAST:,} past", self.run(actor, "accept", ACCEPTING))

    def cordon(self):
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.abax_command("admin", "cordon", self.host)
            except RuntimeError:
                # The host is not there yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def wait_for(self, actor, execution):
        deadline = time.monotonic() + 60
        while self.request("GET", f"/actors/v2/{actor}/executions/{execution}")["status"] != "COMPLETE":
            if time.monotonic() > deadline:
                raise RuntimeError(f"execution {execution} does not end")
            time.sleep(0.05)


class Embedded(Service):
    name = host = "embedded"

    def __enter__(self):
        self.root = self.work / "embedded"
        self.environment = dict(os.environ, ABAX_ROOT=str(self.root))
        self.abax_command("import", "--change", 'CMD ["/bin/true"]', self.work / "rootfs.tar", "busybox")
        self.port = servers.free_port()
        self.urls = [f"http://127.0.0.1:{self.port}"]
        self.restart_worker(4)
        self.token = self.abax_command("token")
        return self

    def __exit__(self, *_):
        self.stop("serve")

    def restart_worker(self, slots):
        self.stop("serve")
        process, log = self.start("serve", "serve", "--listen", f"127.0.0.1:{self.port}", "--slots", slots)
        self.wait_until_ready(self.urls[0], process, log)

    def sql(self, text):
        with contextlib.closing(sqlite3.connect(self.root / "service/abax.db", timeout=60)) as connection, connection:
            return connection.execute(text).fetchall()

    def columns(self, table):
        return [row[1] for row in self.sql(f"pragma table_info({table})")]


class Cluster(Service):
    name = host = "cluster"

    def __enter__(self):
        key, password = self.work / "signing.key", self.work / "password"
        for secret in (key, password):
            secret.write_text(os.urandom(32).hex())
            secret.chmod(0o600)
        self.postgres = self.cleanup.enter_context(servers.Postgres(self.work / "postgres", password.read_text()))
        self.rabbitmq = self.cleanup.enter_context(servers.RabbitMq(self.work / "rabbitmq", password.read_text()))
        self.root = self.work / "cluster"
        ports = [servers.free_port() for _ in range(2)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        config = self.work / "abax.toml"
        config.write_text(
            f'root = "{self.root}"\n'
            f'[database]\nurl = "{self.postgres.url}"\npassword_file = "{password}"\n'
            f'[queue]\nurl = "{self.rabbitmq.url}"\npassword_file = "{password}"\n'
            f'[api]\nsigning_key_file = "{key}"\npublic_url = "{self.urls[0]}"\n'
            f'[worker]\nname = "{self.host}"\n'
        )
        self.environment = dict(os.environ, ABAX_CONFIG=str(config))
        self.abax_command("import", "--change", 'CMD ["/bin/true"]', self.work / "rootfs.tar", "busybox")
        self.abax_command("migrate")
        for number, port in enumerate(ports):
            process, log = self.start(f"api{number}", "api", "--listen", f"127.0.0.1:{port}")
            self.wait_until_ready(self.urls[number], process, log)
        self.restart_worker(4)
        self.token = self.abax_command("token")
        return self

    def __exit__(self, *_):
        for name in list(self.processes):
            self.stop(name)

    def restart_worker(self, slots):
        self.stop("worker")
        self.start("worker", "worker", "--slots", slots)

    def sql(self, text):
        return self.postgres.sql(text)

    def columns(self, table):
        return [row[0] for row in self.sql(f"select column_name from information_schema.columns where table_name = '{table}' and table_schema = 'public'")]


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, result):
        self.rows.append((name, result))
        print(f"{name}: {result['rate']:.0f}/s, p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms", file=sys.stderr)

    def print(self):
        print(f"{os.cpu_count()} cores, Linux {os.uname().release}; everything on this one machine\n")
        print(f"| {'what':52} |    /s | p50 ms | p99 ms |")
        print(f"| {'-' * 52} | ----: | -----: | -----: |")
        for name, result in self.rows:
            print(f"| {name:52} | {result['rate']:5.0f} | {result['p50_ms']:6.1f} | {result['p99_ms']:6.1f} |")


def make_rootfs(work):
    rootfs = work / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    for directory in ("etc", "proc", "sys", "dev", "tmp"):
        (rootfs / directory).mkdir()
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    (rootfs / "bin/true").symlink_to("busybox")
    subprocess.run(["tar", "-C", rootfs, "-cf", work / "rootfs.tar", "."], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("abax", type=pathlib.Path)
    parser.add_argument("load", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", choices=["embedded", "cluster"])
    arguments = parser.parse_args()
    # Whatever stops this, the servers and their data go.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    table = Table()
    with contextlib.ExitStack() as cleanup:
        work = pathlib.Path(tempfile.mkdtemp(prefix="abax-load-", dir="/var/tmp"))
        work.chmod(0o755)
        cleanup.callback(subprocess.run, ["rm", "-rf", work])
        make_rootfs(work)
        for shape in (Embedded, Cluster):
            if arguments.only in (None, shape.name):
                with shape(arguments, work, cleanup) as service:
                    service.measure(table)
    table.print()


if __name__ == "__main__":
    main()
