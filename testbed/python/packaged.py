"""PostgreSQL and RabbitMQ of Debian's packages: what each needs in a directory of
its own, and the command that runs it in the foreground. Where it runs and when
it ends is its caller's to say."""

import os
import pathlib
import pwd
import shutil
import subprocess

USER = "abax"


def as_user(name):
    """The options of setpriv(1) that make a command this user's."""
    entry = pwd.getpwnam(name)
    return ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups"]


class Postgres:
    """A server whose one role is `abax`, with a password."""

    # It does not run as root.
    user = "postgres"

    def __init__(self, directory, address, port, password):
        self.directory, self.address, self.port, self.password = directory, address, port, password
        self.programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=None)

    def make(self, *options):
        """The data; `options` are those of initdb(1)."""
        shutil.chown(self.directory, self.user, self.user)
        secret = self.directory / "password"
        secret.write_text(self.password)
        shutil.chown(secret, self.user)
        initdb = [
            self.programs / "initdb", "-D", self.directory / "data", "-U", USER, "--pwfile", secret,
            "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", *options,
        ]
        done = subprocess.run(["setpriv", *as_user(self.user), "--", *initdb], capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr.strip()}")
        (self.directory / "data/pg_hba.conf").write_text("host all all all scram-sha-256\n")

    def command(self, **settings):
        settings = {"listen_addresses": self.address, "port": self.port, "unix_socket_directories": "", **settings}
        pairs = (part for key, value in settings.items() for part in ("-c", f"{key}={value}"))
        return [self.programs / "postgres", "-D", self.directory / "data", *pairs]

    def psql(self, sql, database, where=(), check=True):
        """The rows, a line each, the columns separated by tabs; None where that
        fails and need not be checked. `where` is a command before the command."""
        done = subprocess.run(
            [*where, "psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", self.address, "-p", str(self.port), "-U", USER, "-d", database, "-f", "-"],
            input=sql, capture_output=True, text=True, env=dict(os.environ, PGPASSWORD=self.password, PGCONNECT_TIMEOUT="5"),
        )
        if done.returncode == 0:
            return done.stdout.strip("\n")
        if check:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return None

    def url(self, database):
        return f"postgres://{USER}@{self.address}:{self.port}/{database}"


class RabbitMq:
    """A node whose one user is `abax`. `ports` are variables of its environment,
    for a machine on which the usual ones may be taken."""

    ready = "Server startup complete"

    def __init__(self, directory, address, port, password, **ports):
        self.directory, self.address, self.port, self.password, self.ports = directory, address, port, password, ports

    def make(self, *settings):
        """Its files; `settings` are lines of rabbitmq.conf."""
        lines = [
            f"default_user = {USER}", f"default_pass = {self.password}", f"listeners.tcp.1 = {self.address}:{self.port}",
            "vm_memory_high_watermark.absolute = 1GiB", "disk_free_limit.absolute = 50MB", "log.console.level = info",
        ]
        (self.directory / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in [*lines, *settings]))
        (self.directory / "rabbitmq-env.conf").write_text("")
        (self.directory / "enabled_plugins").write_text("[].\n")
        for name in ("home", "mnesia", "logs", "config", "schema"):
            (self.directory / name).mkdir()

    def command(self):
        # The port mapper of Erlang would be a daemon of its own.
        return ["sh", "-c", "setpriv --pdeathsig KILL -- epmd & exec /usr/lib/rabbitmq/bin/rabbitmq-server"]

    def environment(self):
        names = {
            "HOME": "home", "RABBITMQ_CONF_ENV_FILE": "rabbitmq-env.conf", "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "advanced.config", "RABBITMQ_ENABLED_PLUGINS_FILE": "enabled_plugins",
            "RABBITMQ_MNESIA_BASE": "mnesia", "RABBITMQ_LOG_BASE": "logs", "RABBITMQ_GENERATED_CONFIG_DIR": "config",
            "RABBITMQ_SCHEMA_DIR": "schema", "RABBITMQ_PID_FILE": "pid",
        }
        return {
            **{key: str(self.directory / name) for key, name in names.items()},
            **{key: str(port) for key, port in self.ports.items()},
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODENAME": "abax@localhost", "RABBITMQ_LOGS": "-",
            # Makes the script become the server instead of watching it.
            "RABBITMQ_ALLOW_INPUT": "1", "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
        }

    def url(self):
        return f"amqp://{USER}@{self.address}:{self.port}/%2f"
