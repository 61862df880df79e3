#!/usr/bin/env python3
"""The Python clients of both generations of Abaco, as PyPI has them.

    clients.py venv DIRECTORY   a virtual environment below DIRECTORY that has them;
                                prints the path of its Python
    clients.py rootfs DIRECTORY the root file system of an image with the same, as a
                                tar archive on standard output

What is there already is used again. The versions are those of the sample actors.
"""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time

REQUIREMENTS = pathlib.Path(__file__).parents[2] / "examples/samples/clients/requirements.txt"
# Of the standard library, what no actor needs.
LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}


def venv(directory):
    """A directory that is there is complete: it gets its name last."""
    version = "{}.{}.{}".format(*sys.version_info)
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:12]
    made = directory / f"venv-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "complete").exists():
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", made], check=True)
            install(made / "bin/python")
            (made / "complete").touch()
    return made / "bin/python"


def install(python):
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--retries", "5"]
    for attempt in range(1, 5):
        if subprocess.run([*command, "--requirement", REQUIREMENTS], stdout=sys.stderr).returncode == 0:
            return
        time.sleep(5 * attempt)
    sys.exit("clients.py: pip could not install the clients")


def rootfs(directory, output):
    python = venv(directory)
    packages = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    packages = pathlib.Path(packages.strip())
    stdlib = pathlib.Path(sysconfig.get_path("stdlib"))
    program = pathlib.Path(os.path.realpath(sys.executable))
    with tarfile.open(fileobj=output, mode="w|") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        add(archive, "/bin/busybox", "bin/busybox")
        for name in ("sh", "env", "ls", "cat", "sleep", "echo", "id"):
            link(archive, f"bin/{name}", "busybox")
        add(archive, program, str(program)[1:])
        for name in ("python3", "python"):
            link(archive, f"bin/{name}", str(program))
        for path in walk(stdlib, lambda name: name in LEFT_OUT or name.startswith("config-")):
            add(archive, path, str(path)[1:])
        for path in walk(packages, lambda name: name in {"pip", "setuptools"}):
            add(archive, path, f"clients/{path.relative_to(packages)}")
        for library in sorted(libraries([program, *stdlib.rglob("*.so"), *packages.rglob("*.so")])):
            add(archive, os.path.realpath(library), library[1:])


def walk(top, left_out):
    for place, directories, files in os.walk(top):
        directories[:] = sorted(name for name in directories if not left_out(name))
        yield from (pathlib.Path(place) / name for name in sorted(files))


def libraries(programs):
    """The shared libraries of programs and modules, as the loader finds them."""
    found = set()
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True)
        found.update(re.findall(r"(?:=> |^\s+)(/\S+)", done.stdout, re.MULTILINE))
    return found


def add(archive, path, name):
    entry = archive.gettarinfo(os.path.realpath(path), name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444
    # A hard link to what may not be in the archive.
    entry.type = tarfile.REGTYPE
    entry.size = os.path.getsize(path)
    with open(path, "rb") as file:
        archive.addfile(entry, file)


def link(archive, name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("venv", "rootfs"):
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[2]).resolve()
    if sys.argv[1] == "venv":
        print(venv(directory))
    else:
        rootfs(directory, sys.stdout.buffer)


if __name__ == "__main__":
    main()
