"""The engine process: loads a checkpoint, then loops over `Engine.step` until the front goes.

Started as `python -m service.engine.worker`, so that nothing of the front imports torch. Its
main thread owns the device; one thread reads messages, another sends heartbeats, so that a long
load is not taken for a hang.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import psutil
import structlog

from models.errors import CheckpointError
from models.malloc import disable_mmap, give_back, start_gc_thread
from service.engine.stats import num_traced
from service.logs import configure_logging
from service.protocol.connection import Connection, ProtocolError
from service.protocol.messages import Abort, Add, Fatal, Heartbeat, Message, Ready, Sick
from service.protocol.process_contract import EXIT_BAD_CHECKPOINT, EXIT_SICK_DEVICE
from service.settings import EngineSettings

if TYPE_CHECKING:
    from service.engine.engine import Engine

LoadEngine = Callable[[EngineSettings], "tuple[Engine, Ready]"]

HEARTBEAT_S = 0.5
ORPHAN_S = 10.0
"""How long a step may go on after the front has gone."""

REST_S = 5.0
"""How long it is idle before it gives back memory: who draws comes again sooner."""

WARMING_S = 1.0
"""How long it is idle before it looks whether another shape has become warm."""

_log = structlog.get_logger(__name__)


class Worker:
    """Joins an engine to a connection: messages in, outcomes out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()  # None: the end
        self._engine: Engine | None = None
        self._phase = "loading"
        self._has_worked = True  # since it last gave back memory

    def load(self, settings: EngineSettings, load_engine: LoadEngine | None = None) -> Engine:
        """Load and warm the checkpoint, telling the front of each phase.

        `load_engine` is another way to an engine than that of `service.engine.builder`. Raises
        CheckpointError or ValueError for what the operator must mend.
        """
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        # Importing torch takes seconds, and the first heartbeat should not wait for it.
        from service.engine.first_picture import warm_up  # noqa: PLC0415

        self._engine, ready = (load_engine or _load_checkpoint)(settings)
        warming = self._engine.warming if settings.compile == "full" else None
        if warming is not None:
            self._enter("compiling")
            warming.compile_all()
        self._enter("warming")
        if warming is not None:
            warming.adopt_all()
        warm_up(self._engine)
        start_gc_thread()
        self._connection.send(ready)
        self._enter("serving")
        return self._engine

    def serve(self, engine: Engine) -> None:
        """Loop until the front has closed the connection."""
        while self._take_messages(engine):
            for outcome in engine.step():
                self._connection.send(outcome)

    def _take_messages(self, engine: Engine) -> bool:
        """Hand over all that has arrived, waiting where the engine is idle; False at the end."""
        while True:
            try:
                message = self._inbox.get(not engine.has_work(), self._idle_s(engine))
            except queue.Empty:
                if engine.has_work():
                    return True
                self._be_idle(engine)
                continue
            self._has_worked = True
            if message is None:
                return False
            if isinstance(message, Add):
                engine.add(message.job)
            elif isinstance(message, Abort):
                engine.abort(message.job_id)

    def _idle_s(self, engine: Engine) -> float | None:
        """Return how long to wait for a message before `_be_idle`; None: as long as it takes."""
        if engine.is_warming:
            return WARMING_S
        return REST_S if self._has_worked else None

    def _be_idle(self, engine: Engine) -> None:
        """Take up what has been compiled; with nothing left to wait for, give back memory."""
        if engine.is_warming:
            engine.advance_warming()
        else:
            give_back()
            self._has_worked = False

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put(self._connection.receive())
        except (EOFError, OSError, ProtocolError):
            self._inbox.put(None)
            if self._phase == "serving":
                time.sleep(ORPHAN_S)
            os._exit(0)  # the front has gone: the running work is of no use

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            try:
                self._send_heartbeat()
            except Exception:  # noqa: BLE001 - the last beat would be taken for a hang
                _log.exception("a heartbeat failed")

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        try:
            self._connection.send(self._heartbeat())
        except OSError:
            return  # the front has gone, which the reader sees too

    def _heartbeat(self) -> Heartbeat:
        engine = self._engine
        if engine is None:
            return Heartbeat(self._phase)
        allocated_bytes, reserved_bytes = engine.device_bytes()
        return Heartbeat(
            self._phase,
            num_jobs=engine.num_jobs,
            num_waiting=engine.num_waiting,
            num_running=engine.num_running,
            max_batch=engine.max_batch,
            step_running_s=engine.pace.running_s(),
            step_p99_s=engine.pace.p99_s,
            adopting_s=engine.pace.adopting_s(),
            allocated_bytes=allocated_bytes,
            reserved_bytes=reserved_bytes,
            resident_bytes=psutil.Process().memory_info().rss,
            num_blocks=sys.getallocatedblocks(),
            num_recompiles=num_traced(),
            num_warm=engine.warming.num_warm if engine.warming else 0,
            num_targets=engine.warming.num_targets if engine.warming else 0,
            warm=engine.warm_rows(),
            **asdict(engine.stats),
        )


def _load_checkpoint(settings: EngineSettings) -> tuple[Engine, Ready]:
    from service.engine.builder import load_engine  # noqa: PLC0415

    return load_engine(settings)


def main(load_engine: LoadEngine | None = None) -> int:
    """Run one engine on the socket that the parent has opened; return the exit code."""
    parser = argparse.ArgumentParser(prog="service.engine.worker")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    arguments = parser.parse_args()
    disable_mmap()  # a picture of `pocket` takes 0.88 s so, and 1.22 s with its activations mapped
    settings = EngineSettings.model_validate_json(arguments.settings)
    for signum in (signal.SIGINT, signal.SIGTERM):  # to the whole group: the front's to drain on
        signal.signal(signum, signal.SIG_IGN)
    configure_logging(settings.log_format)
    connection = Connection(socket.socket(fileno=arguments.socket_fd))
    return run_worker(connection, settings, load_engine)


def run_worker(
    connection: Connection, settings: EngineSettings, load_engine: LoadEngine | None = None
) -> int:
    """Run a worker to its end and turn the way it ended into an exit code."""
    worker = Worker(connection)
    try:
        engine = worker.load(settings, load_engine)
    except (CheckpointError, ValueError) as error:
        connection.send(Fatal(str(error)))
        return EXIT_BAD_CHECKPOINT
    try:
        worker.serve(engine)
    except OSError:
        return 0  # the front has gone in the middle of an answer
    except Exception as error:  # noqa: BLE001 - only a new process cures a sick device
        with suppress(OSError):
            connection.send(Sick(type(error).__name__))
        _log.exception("the engine ends")
        os._exit(EXIT_SICK_DEVICE)  # tearing a sick device down could hang
    return 0


if __name__ == "__main__":
    sys.exit(main())
