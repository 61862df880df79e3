#!/usr/bin/env python3
"""Whatever stops a run, nothing is left of it.

    test_stops.py ABAX EFFECT

Needs what chaos.py needs, and takes half a minute.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import checks
import servers

CHAOS = pathlib.Path(__file__).with_name("chaos.py")


def start():
    """A run whose SIGINT is ignored, as by a shell in the background."""
    command = [sys.executable, "-B", CHAOS, *sys.argv[1:], "--duration", "60", "--seed", "1"]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore)


def read_until(run, words):
    """The line with these words."""
    lines = []
    for line in run.stdout:
        lines.append(line)
        if words in line:
            return line
    raise SystemExit(f"the run ended, and never said {words}:\n{''.join(lines)}")


def containers_of(work):
    """Once there are some."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for directory in work.glob("worker*/root/containers"):
            with contextlib.suppress(OSError):
                if found := os.listdir(directory):
                    return found
        time.sleep(0.05)
    raise SystemExit("no container in half a minute")


def stop(run, number):
    run.send_signal(number)
    run.communicate(timeout=60)
    return run.returncode


def left(work, containers):
    yield from checks.namespaces()
    yield from map(str, servers.control_groups(containers))
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if str(work) in line:
            yield f"the mount {line}"
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(work) in command:
                yield f"the process {process}: {command}"


def main():
    works, containers = [], []
    # The first goes by a signal; the second is killed; the third clears away
    # what that has left, before it goes as well.
    for number, words in ((signal.SIGINT, "faults in"), (signal.SIGKILL, "faults in"), (signal.SIGTERM, "seed")):
        run = start()
        try:
            line = read_until(run, "logs in")
            works.append(pathlib.Path(line.split("logs in ")[1].strip()).parent)
            if words not in line:
                read_until(run, words)
                containers += containers_of(works[-1])
            code = stop(run, number)
        finally:
            run.kill()
        expected = -number if number == signal.SIGKILL else 128 + number
        if code != expected:
            raise SystemExit(f"after {number.name} the run ended with {code}")
        found = [] if number == signal.SIGKILL else [finding for work in works for finding in left(work, containers)]
        if found:
            raise SystemExit(f"left after {number.name}:\n" + "\n".join(found))
        if not (works[-1] / "logs").exists() and words == "faults in":
            raise SystemExit(f"{number.name} took the logs along")
    for work in works:
        shutil.rmtree(work)
    print("runs that were stopped have left nothing")


if __name__ == "__main__":
    main()
