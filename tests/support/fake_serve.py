"""`python -m tests.support.fake_serve`: `serve` around the engine that sleeps.

Settings come from REFINE_*, the supervisor's patience from FAKE_PATIENCE as JSON.
"""

from __future__ import annotations

import json
import os
import resource
from functools import partial

from models.malloc import bound_malloc, start_gc_thread
from service.engine_client.process import WorkerProcess
from service.engine_client.supervisor import WatchdogTimeouts
from service.front.app import create_app
from service.front.server import MAPPED_BYTES, create_server
from service.logs import configure_logging
from service.settings import Settings
from tests.support.leak import LeakyClient

ENGINE = "tests.support.fake_engine"


def main() -> None:
    if "FAKE_FILE_LIMIT" in os.environ:  # a full disk, for this process and its engine
        limit = int(os.environ["FAKE_FILE_LIMIT"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    bound_malloc(MAPPED_BYTES)
    settings = Settings()
    configure_logging(settings.log_format)
    client = LeakyClient(
        settings.engines()[0],
        spawn=partial(WorkerProcess, module=os.environ.get("FAKE_ENGINE", ENGINE)),
        patience=WatchdogTimeouts(**json.loads(os.environ.get("FAKE_PATIENCE", "{}"))),
    )
    server = create_server(create_app(settings, client), settings)
    start_gc_thread()
    server.run()


if __name__ == "__main__":
    main()
