"""What the tests share: tiny checkpoints, made once a session, and backends for the wire."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# Tiny models gain nothing from threads, and lose much where other work shares the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reached for the hub would hang, not fail
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Structlog's own default draws each trace with its variables, which takes seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

from tests.support.backends import (  # noqa: E402 - numpy reads the threads when it is imported
    BACKENDS,
    FakeWitness,
    Services,
    ServiceWitness,
    Witness,
    backends_of,
)
from tests.support.fakes import FakeEngineClient  # noqa: E402
from tests.support.servers import KEY, MAX_BODY_BYTES, running_server  # noqa: E402
from tests.whole_service.test_service import Served  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case of the wire on every backend that it is meant for."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", backends_of(metafunc))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the cases of each whole service together, last: no other test runs beside its engines."""

    def place(item: pytest.Item) -> int:
        callspec = getattr(item, "callspec", None)
        return BACKENDS.index(callspec.params.get("backend", "fake") if callspec else "fake")

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Logging that a test sets up ends with it: the next one finds its stream closed."""
    handlers = logging.root.handlers
    yield
    logging.root.handlers = handlers


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    services = Services()
    yield services
    services.end()


@pytest.fixture(scope="module")
def faked() -> Iterator[tuple[str, FakeEngineClient]]:
    """A front on a fake engine: its address, without a slash, and its engine."""
    engine = FakeEngineClient()
    with running_server(
        engine, api_keys=f"another,{KEY}", max_body_bytes=MAX_BODY_BYTES
    ) as address:
        yield address, engine


@pytest.fixture
def engine(faked: tuple[str, FakeEngineClient]) -> Iterator[FakeEngineClient]:
    """The fake engine, fresh for each test."""
    _, engine = faked
    engine.asked.clear()
    yield engine
    engine.refusals.clear()


@pytest.fixture
def witness(backend: str, request: pytest.FixtureRequest) -> Witness:
    """Who knows what reached the engine."""
    if backend == "fake":
        return FakeWitness(request.getfixturevalue("engine"))
    return ServiceWitness(request.getfixturevalue("services").named(backend).url)


@pytest.fixture
def address(backend: str, request: pytest.FixtureRequest) -> str:
    """Where the server is, without a slash."""
    if backend == "fake":
        url: str = request.getfixturevalue("faked")[0]
        return url
    service: Served = request.getfixturevalue("services").named(backend)
    return service.url


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with an `AutoencoderTiny`."""
    from tests.support.checkpoints import write_checkpoint  # noqa: PLC0415 - most tests need no torch

    return write_checkpoint(tmp_path_factory.mktemp("tiny"), vae="tiny")


@pytest.fixture(scope="session")
def kl_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with an `AutoencoderKL`, which samples a posterior."""
    from tests.support.checkpoints import write_checkpoint  # noqa: PLC0415 - most tests need no torch

    return write_checkpoint(tmp_path_factory.mktemp("kl"), vae="kl")
