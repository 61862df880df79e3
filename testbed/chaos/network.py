"""Hosts as network namespaces around one switch, and the cuts between them.

The switch is a bridge in a namespace of its own, so nothing of this is visible
on the machine's own interfaces, and no firewall of the machine sees it. A cut
is a rule of that bridge that drops what one host sends to another: connections
stay open, and nothing arrives.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import time

PREFIX = "abaxchaos-"
SUBNET = "10.213.7"
CLONE_NEWNET = 0x40000000


def run(*command, **options):
    """Runs a command to its end; what it said is in the error where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}{done.stdout}".strip())
    return done.stdout


class Network:
    """`hosts` are names; each gets an address of the subnet in their order."""

    def __init__(self, hosts):
        self.addresses = {host: f"{SUBNET}.{number}" for number, host in enumerate(hosts, start=11)}
        self.cuts = []

    def create(self):
        switch = PREFIX + "switch"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "switch", "up")
        for number, (host, address) in enumerate(self.addresses.items()):
            namespace = PREFIX + host
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", switch)
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            run("ip", "-n", switch, "link", "set", f"port{number}", "master", "switch", "up")
        self.write_rules()

    def remove(self):
        """Ends what runs in the namespaces, of an earlier run too, and the namespaces."""
        for name in self.namespaces():
            for _ in range(50):
                # Our own threads are on a host, too.
                processes = [int(line) for line in run("ip", "netns", "pids", name).split() if int(line) != os.getpid()]
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                if not processes:
                    break
                time.sleep(0.1)
            run("ip", "netns", "delete", name)

    @staticmethod
    def namespaces():
        directory = pathlib.Path("/run/netns")
        return sorted(entry.name for entry in directory.iterdir() if entry.name.startswith(PREFIX)) if directory.exists() else []

    def cut(self, source, target):
        """Nothing that `source` sends reaches `target` any more."""
        self.cuts.append((source, target))
        self.write_rules()

    def mend(self, source, target):
        with contextlib.suppress(ValueError):
            self.cuts.remove((source, target))
        self.write_rules()

    def mend_all(self):
        self.cuts.clear()
        self.write_rules()

    def write_rules(self):
        """The cuts that hold now, in place of those before, in one step."""
        drops = "".join(
            f"ip saddr {self.addresses[source]} ip daddr {self.addresses[target]} drop\n" for source, target in sorted(set(self.cuts))
        )
        chain = f"chain forward {{\ntype filter hook forward priority 0;\n{drops}}}"
        rules = f"table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {{\n{chain}\n}}\n"
        run(*entering("switch"), "nft", "-f", "-", input=rules)


def entering(host):
    """The command before a command that runs on a host; mounts stay the machine's."""
    return ["nsenter", f"--net=/run/netns/{PREFIX}{host}"]


def enter(host):
    """Puts the calling thread on a host: sockets that it opens are the host's."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{PREFIX}{host}") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"could not enter the host {host}")
