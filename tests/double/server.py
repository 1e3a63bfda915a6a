"""An adb server of our own, so that the one of the user, with the user's phones, is neither seen nor stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .device import SECONDS, Double, free_port, wait_for_listener
from .missing import Missing


@dataclass(frozen=True)
class Server:
    """The `adb` to call, and the `environment` in which it talks to this server and to no other."""

    adb: str
    environment: dict[str, str]

    def call(self, *words: str, seconds: float = SECONDS) -> str:
        """Return what `adb *words` printed; CalledProcessError when it failed, TimeoutExpired when it took longer."""
        done = subprocess.run(
            (self.adb, *words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
        return done.stdout

    def connect(self, double: Double) -> None:
        """Bring `double` to the state "device" now; by itself adb 29 takes ten seconds to notice a new plug.

        A server that has not yet buried the old connection now and then takes the new one with it: then once more.
        """
        for seconds in (5, 5):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._connect(double, seconds)
        return self._connect(double, SECONDS)

    def _connect(self, double: Double, seconds: float) -> None:
        subprocess.run((self.adb, "disconnect", double.serial), env=self.environment, capture_output=True, check=False)
        self.call("connect", double.serial)
        self.call("-s", double.serial, "wait-for-device", seconds=seconds)

    def disconnect(self, double: Double) -> None:
        """Forget `double`."""
        self.call("disconnect", double.serial)


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Server]:
    """Run an adb server until the block ends; what it and its clients write goes below `home`. Missing without adb."""
    adb = os.environ.get("ADB") or shutil.which("adb")
    if adb is None:
        raise Missing("the device double is of no use without adb (Debian: apt-get install adb)")
    home.mkdir(exist_ok=True)
    port = free_port()
    socket = f"tcp:localhost:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ADB", "ANDROID"))},
        "ADB_SERVER_SOCKET": socket,
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",  # do not look for the emulators of the user
        "HOME": str(home),
        "TMPDIR": str(home),
    }
    server = Server(adb, environment)
    command = (adb, "-L", socket, "nodaemon", "server")
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for_listener(port)
            yield server
        finally:
            subprocess.run((adb, "kill-server"), env=environment, capture_output=True, check=False)
            process.kill()
