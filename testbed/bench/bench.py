#!/usr/bin/env python3
"""How long a container takes, beside the peers, in one run.

    bench.py ABAX LAUNCH FLOOR [--rounds 20]

ABAX is the release binary, LAUNCH the runtime's own bench (`launch`), FLOOR the
compiled floor.c.

Every round runs every case once, in an order of its own, so that whatever else
the machine does falls on all of them alike: only ratios within one run mean
something. A peer that is not installed, or does not work here, is named and
left out. Needs root. The table goes to standard output.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def timed(command, **options):
    """Milliseconds of wall time from spawn to exit; raises where the command fails."""
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, **options)
    took = (time.perf_counter() - start) * 1000
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-300:].strip()}")
    return took


def median_of_many(command):
    """Milliseconds, from a program that prints the microseconds of each of its runs; the first two warm up."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr[-300:].strip()}")
    return statistics.median(map(float, done.stdout.split()[2:])) / 1000


def percentile(times, share):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Bench:
    def __init__(self, arguments, work, cleanup):
        self.abax, self.launch, self.floor = (path.resolve() for path in (arguments.abax, arguments.launch, arguments.floor))
        self.work, self.cleanup, self.rounds = work, cleanup, arguments.rounds
        self.cases = {}
        self.notes = []
        self.rootfs = work / "rootfs"
        self.environment = dict(os.environ, ABAX_ROOT=str(work / "abax"))

    def make_rootfs(self):
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            (self.rootfs / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.rootfs / "bin/busybox")
        for applet in ("true", "sh", "echo", "sleep"):
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        (self.rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (self.rootfs / "etc/group").write_text("root:x:0:\n")
        subprocess.run(["tar", "-C", self.rootfs, "-cf", self.work / "rootfs.tar", "."], check=True)

    def add(self, name, case):
        """Keeps a case whose first run works; says which do not."""
        try:
            case()
            case()
        except (OSError, RuntimeError, subprocess.SubprocessError, KeyError, ValueError) as error:
            self.notes.append(f"{name}: left out: {error}")
            return
        self.cases[name] = case

    def add_floor(self):
        scratch = self.work / "floor"
        command = [self.floor, "-c", self.rootfs, scratch, "/bin/true"]
        self.add("floor: fork and exec, no container", lambda: timed(["/bin/busybox", "true"]))
        self.add("floor: full container, one process each", lambda: timed(command))

        in_process = [self.floor, "-c", "-n", "12", *command[2:]]
        self.add("floor: full container, in process", lambda: median_of_many(in_process))

    def add_abax(self):
        subprocess.run([self.abax, "import", "--change", 'CMD ["/bin/true"]', self.work / "rootfs.tar", "busybox"], check=True, env=self.environment, stdout=subprocess.DEVNULL)
        run = [self.abax, "run", "--rm"]
        program = ["busybox", "/bin/true"]
        none = ["--network", "none"]
        self.add("abax run --network none", lambda: timed([*run, *none, *program], env=self.environment))
        limits = ["-m", "256m", "--cpus", "1", "--pids-limit", "100"]
        self.add("abax run --network none, with limits", lambda: timed([*run, *none, *limits, *program], env=self.environment))
        self.add("abax run, bridge", lambda: timed([*run, *program], env=self.environment))

        for case, name in {
            "docker": "abax in process, no network",
            "docker-limits": "abax in process, no network, with limits",
            "execution": "abax in process, as an execution",
            "execution-limits": "abax in process, as an execution, with limits",
        }.items():
            command = [self.launch, self.work / "abax", case, "12", *program]
            self.add(name, lambda command=command: median_of_many(command))

    def add_service(self):
        log = open(self.work / "serve.log", "w+")
        serve = subprocess.Popen([self.abax, "serve", "--listen", "127.0.0.1:0"], env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        self.cleanup.callback(self.stop, serve)
        url = None
        for _ in range(200):
            words = (self.work / "serve.log").read_text().split()
            url = next((word.rstrip("/.,") for word in words if word.startswith("http://127.0.0.1:")), None)
            if url or serve.poll() is not None:
                break
            time.sleep(0.05)
        if not url:
            self.notes.append("abax serve did not start: " + (self.work / "serve.log").read_text()[-300:])
            return
        token = subprocess.run([self.abax, "token"], check=True, capture_output=True, text=True, env=self.environment).stdout.strip()

        def request(method, path, body=None):
            data = None if body is None else json.dumps(body).encode()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(url + path, data, headers, method=method), timeout=60) as answer:
                return answer.read()

        actor = json.loads(request("POST", "/actors/v2", {"image": "busybox", "name": "bench"}))["result"]["id"]

        def post_and_wait():
            start = time.perf_counter()
            request("POST", f"/actors/v2/{actor}/messages?_abaco_synchronous=true", {"n": 1})
            return (time.perf_counter() - start) * 1000

        self.add("POST to result, synchronous", post_and_wait)

    @staticmethod
    def stop(process):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()

    def free_the_unified_hierarchy(self):
        """crun and podman refuse a hybrid machine whose v2 tree has controllers; hugetlb can move to v1."""
        controllers = pathlib.Path("/sys/fs/cgroup/unified/cgroup.controllers")
        if not controllers.exists() or controllers.read_text().split() != ["hugetlb"]:
            return
        target = pathlib.Path("/sys/fs/cgroup/hugetlb")
        target.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "none", target]).returncode == 0:
            self.cleanup.callback(subprocess.run, ["umount", target])

    def add_oci_runtimes(self):
        """crun and runc with the configuration that podman writes: seccomp, capabilities, masks."""
        for runtime in ("crun", "runc"):
            if not shutil.which(runtime):
                self.notes.append(f"{runtime}: not installed")
                continue
            bundle = self.work / f"bundle-{runtime}"
            bundle.mkdir()
            subprocess.run([runtime, "spec"], cwd=bundle, check=True)
            config = json.loads((bundle / "config.json").read_text())
            config["root"] = {"path": str(self.rootfs), "readonly": False}
            config["process"].update(terminal=False, args=["/bin/true"], env=[PATH])
            keep = ["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"]
            names = ["CAP_" + name for name in keep]
            config["process"]["capabilities"] = {kind: names for kind in ("bounding", "effective", "permitted")}
            config["process"].pop("rlimits", None)
            profile = pathlib.Path("/usr/share/containers/seccomp.json")
            if profile.exists():
                config["linux"]["seccomp"] = oci_seccomp(json.loads(profile.read_text()), names)
            else:
                self.notes.append(f"{runtime}: runs without seccomp, {profile} is not there")
            (bundle / "config.json").write_text(json.dumps(config))
            number = iter(range(10**9))

            def case(runtime=runtime, bundle=bundle, number=number):
                return timed([runtime, "run", "--bundle", bundle, f"abax-bench-{os.getpid()}-{next(number)}"])

            self.add(f"{runtime} run, Docker-like", case)

    def add_podman(self):
        if not shutil.which("podman"):
            self.notes.append("podman: not installed")
            return
        settings = self.work / "containers.conf"
        settings.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        environment = dict(os.environ, CONTAINERS_CONF=str(settings))
        podman = ["podman", "--root", self.work / "podman", "--runroot", self.work / "podman-run"]
        try:
            subprocess.run([*podman, "import", self.work / "rootfs.tar", "abax-bench"], check=True, env=environment, capture_output=True)
        except subprocess.CalledProcessError as error:
            self.notes.append(f"podman: left out: {error.stderr.decode()[-200:].strip()}")
            return
        run = [*podman, "run", "--rm"]
        self.add("podman run --network none", lambda: timed([*run, "--network", "none", "abax-bench", "/bin/true"], env=environment))
        self.add("podman run, bridge", lambda: timed([*run, "abax-bench", "/bin/true"], env=environment))

    def add_docker(self):
        daemon = shutil.which("dockerd", path="/usr/sbin:/usr/bin")
        client = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and os.path.exists(path)), None)
        if not daemon or not client:
            self.notes.append("docker: not installed")
            return
        state = self.work / "docker"
        state.mkdir()
        socket = f"unix://{state}/docker.sock"
        log = open(state / "log", "w")
        process = subprocess.Popen(
            [daemon, "--host", socket, "--data-root", state / "data", "--exec-root", state / "exec", "--pidfile", state / "pid"],
            stdout=log, stderr=log,
        )
        self.cleanup.callback(self.stop, process)
        docker = [client, "--host", socket]
        for _ in range(300):
            if subprocess.run([*docker, "version"], capture_output=True).returncode == 0:
                break
            if process.poll() is not None:
                self.notes.append("docker: left out: " + (state / "log").read_text()[-200:].strip())
                return
            time.sleep(0.1)
        subprocess.run([*docker, "import", self.work / "rootfs.tar", "abax-bench"], check=True, capture_output=True)
        run = [*docker, "run", "--rm"]
        self.add("docker run --network none", lambda: timed([*run, "--network", "none", "abax-bench", "/bin/true"]))
        self.add("docker run, bridge", lambda: timed([*run, "abax-bench", "/bin/true"]))

    def measure(self):
        times = {name: [] for name in self.cases}
        order = list(self.cases)
        chance = random.Random(42)
        for number in range(self.rounds):
            chance.shuffle(order)
            for name in order:
                times[name].append(self.cases[name]())
            print(f"\rround {number + 1} of {self.rounds}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return times

    def print_table(self, times):
        reference = next((name for name in times if name.startswith("crun")), None)
        versus = statistics.median(times[reference]) if reference else None
        print(f"`true` of busybox in a fresh container, ms, {self.rounds} interleaved rounds,")
        print(f"{os.cpu_count()} cores, Linux {os.uname().release}\n")
        print(f"| {'what':45} | median |    p99 |    min | × {reference or 'crun'} |")
        print(f"| {'-' * 45} | -----: | -----: | -----: | -----: |")
        for name, values in times.items():
            median = statistics.median(values)
            ratio = f"{median / versus:6.2f}" if versus else "     -"
            print(f"| {name:45} | {median:6.1f} | {percentile(values, 0.99):6.1f} | {min(values):6.1f} | {ratio} |")
        for note in self.notes:
            print(f"\n{note}")


def oci_seccomp(profile, capabilities):
    """Docker's form of a profile as the runtime spec's, for these capabilities."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    native = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
    found = {"defaultAction": profile["defaultAction"], "architectures": [native], "syscalls": []}
    for rule in profile["syscalls"]:
        wants, refuses = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(wants.get("caps", [])) <= set(capabilities) or set(refuses.get("caps", [])) & set(capabilities):
            continue
        if "arches" in wants and machine not in wants["arches"] or machine in refuses.get("arches", []):
            continue
        entry = {"names": rule["names"], "action": rule["action"]}
        if rule.get("args"):
            entry["args"] = rule["args"]
        if rule.get("errnoRet") is not None and rule["action"] == "SCMP_ACT_ERRNO":
            entry["errnoRet"] = rule["errnoRet"]
        found["syscalls"].append(entry)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("abax", type=pathlib.Path)
    parser.add_argument("launch", type=pathlib.Path)
    parser.add_argument("floor", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    # Whatever stops this, the peers' daemons and their data go.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as cleanup:
        work = pathlib.Path(tempfile.mkdtemp(prefix="abax-bench-", dir="/var/tmp"))
        cleanup.callback(subprocess.run, ["rm", "-rf", work])
        bench = Bench(arguments, work, cleanup)
        bench.make_rootfs()
        bench.add_floor()
        bench.add_abax()
        bench.add_service()
        bench.free_the_unified_hierarchy()
        bench.add_oci_runtimes()
        bench.add_podman()
        bench.add_docker()
        bench.print_table(bench.measure())


if __name__ == "__main__":
    main()
