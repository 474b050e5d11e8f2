"""One engine process and the connection to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

from service.protocol.connection import Connection
from service.protocol.process_contract import SEALED

if TYPE_CHECKING:
    from service.settings import EngineSettings

_END_S = 5.0

# How long OpenMP's threads spin before they sleep. The default, 300,000, makes a UNet step of
# 46 ms take 3 s where another process shares the cores, since the spinning keeps it waiting; with
# 10,000 it is 50 ms alone and 0.2 s in company; without any spinning 90 ms alone.
_TUNED = {"GOMP_SPINCOUNT": "10000"}


class EngineProcess(Protocol):
    """What the client needs of an engine, in a process of its own or, in tests, in a thread."""

    connection: Connection

    def join(self) -> int:
        """Wait for the end, forcing it where it does not come; return the exit code."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class WorkerProcess:
    """`python -m service.engine.worker`, or another `module`, on one end of a socket pair."""

    def __init__(self, settings: EngineSettings, module: str = "service.engine.worker") -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours)
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            [
                sys.executable,
                "-P",  # else a models.py in the current folder would be taken for ours
                "-m",
                module,
                f"--socket-fd={theirs.fileno()}",
                f"--settings={settings.model_dump_json()}",
            ],
            pass_fds=[theirs.fileno()],
            env={**_TUNED, **os.environ, **SEALED},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def join(self) -> int:
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
