"""A PostgreSQL server of a test's own, which ends with the test."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import until

PASSWORD = "p@ss%w/o?r:d#1 é"
"""Password of the server's user: all that has a meaning in a URL."""
PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Server:
    """A server on 127.0.0.1; its user `writer` has the password `PASSWORD`."""

    port: int
    folder: Path
    process: subprocess.Popen

    def connect(self, **options):
        """Connect with psycopg, as a superuser of the server."""
        import psycopg

        defaults = {
            "host": str(self.folder),
            "port": self.port,
            "user": "owner",
            "dbname": "postgres",
        }
        return psycopg.connect(**defaults | options)


def programs():
    """The folder of the server's programs; skip the test if there is none."""
    on_path = shutil.which("initdb")
    # Debian keeps the versions apart, and not on PATH.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    if not folders:
        pytest.skip("no PostgreSQL server here (Debian's package postgresql)")
    return folders[-1]


def owner():
    """The user that runs the server: not root, which the server refuses."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("this is root, whom PostgreSQL refuses, and there is no user postgres")
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def server():
    """Start a server, and stop it in the end."""
    bin_folder, user = programs(), owner()
    # Not pytest's folder: the server's user may not enter it. A socket's path is short (107 bytes).
    folder = Path(tempfile.mkdtemp(prefix="bertjax-pg-"))
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        data = folder / "data"
        subprocess.run(
            [
                bin_folder / "initdb", "--pgdata", data, "--username", "owner", "--encoding", "UTF8",
                "--locale", "C", "--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync",
            ],
            check=True, capture_output=True, cwd=folder, **user,
        )  # fmt: skip
        with started(bin_folder, user, folder, data) as process:
            yield process
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def started(bin_folder, user, folder, data):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        [
            bin_folder / "postgres", "-D", data, "-k", folder, "-p", str(port), "-h", "127.0.0.1",
            "-c", "fsync=off", "-c", "shared_buffers=16MB",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
        cwd=folder,
        # The kernel stops the server if this process is killed.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT),
        **user,
    )  # fmt: skip
    try:
        running = Server(port, folder, process)
        until(lambda: answers(running), process=process, expected="the server answers")
        with running.connect(autocommit=True) as connection:
            # A literal, since the server takes no parameter here.
            connection.execute(f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO writer")
        yield running
    finally:
        # At once, without waiting for clients.
        process.send_signal(signal.SIGQUIT)
        process.wait()


def answers(running):
    import psycopg

    try:
        running.connect().close()
    except psycopg.OperationalError:
        return False
    return True
