"""The whole service as a user starts it: two processes, a real engine, signals."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.engine_client.local import LocalEngineClient
from service.protocol.jobs import GenerationParams, Progress
from service.protocol.messages import Heartbeat
from service.settings import EngineSettings
from tests.support.servers import START_S, running_server, wait_until

COMMAND = Path(sys.executable).with_name("instant-refine")
ROUTE = "/lcm-instant-refine"
SLOW: dict[str, Any] = {"steps": 16, "strength": 1.0, "height": 1024, "width": 640, "seed": 11}
"""Fields of a request that runs for seconds, so that a test can act meanwhile."""
PATIENT = {"REFINE_DEADLINE_S": "240", "REFINE_DRAIN_TIMEOUT_S": "240"}
"""Of services whose tests are not about their deadlines: a busy machine takes its time."""


def body(**fields: Any) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (512, 512), (200, 40, 40)).save(file, "JPEG")
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"imageDataUrl": url, "prompt": "a red heart", "seed": 3, **fields}


class Served:
    """`instant-refine serve` as a process of its own."""

    def __init__(self, model: Path | str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [COMMAND, "serve", "--port", str(port), "--model", str(model)],
            env={**os.environ, "REFINE_LOG_FORMAT": "json", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def readiness(self) -> httpx.Response:
        return httpx.get(self.url + "/health/ready")

    def is_ready(self) -> bool:
        try:
            return self.readiness().status_code == 200
        except httpx.TransportError:
            return False

    def refine(self, **fields: Any) -> httpx.Response:
        return httpx.post(self.url + ROUTE, json=body(**fields), timeout=240)

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (pid,) = children.split()
        return int(pid)

    def end(self) -> int:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return self.process.returncode


@contextmanager
def served(model: Path | str, start_s: float = START_S, /, **environment: str) -> Iterator[Served]:
    service = Served(model, **environment)
    try:
        wait_until(service.is_ready, start_s)
        yield service
    finally:
        service.end()


@pytest.fixture(scope="module")
def service(tiny_checkpoint: Path) -> Iterator[Served]:
    with served(tiny_checkpoint, **PATIENT) as service:
        yield service


def test_the_same_request_gives_the_same_picture(service: Served) -> None:
    """A seed makes a picture again, to the byte; another seed makes another one."""
    first, again, other = (service.refine(seed=seed) for seed in (3, 3, 4))
    assert first.status_code == again.status_code == other.status_code == 200
    assert first.json() == again.json()
    assert first.json() != other.json()


def test_there_is_no_torch_in_the_front(service: Served) -> None:
    """The front process maps none of torch's libraries; the engine's does."""
    assert service.refine().status_code == 200

    def maps(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    assert "torch" not in maps(service.process.pid)
    assert "libtorch" in maps(service.engine_pid())


def test_the_log_tells_neither_prompt_nor_picture(service: Served) -> None:
    """Each request leaves one line of JSON with its id, and nothing of its content."""
    response = service.refine(prompt="CANARY")
    request_id = response.headers["x-request-id"]
    wait_until(lambda: any(request_id in line for line in service.log), 5)
    lines = [json.loads(line) for line in service.log if request_id in line]
    assert [(line["event"], line["status"]) for line in lines] == [("request", 200)]
    assert not any("CANARY" in line or "base64" in line for line in service.log)


def test_a_killed_engine_is_replaced_and_the_front_lives(service: Served) -> None:
    """SIGKILL of the engine: 503 with Retry-After, then pictures again, from the same front."""
    os.kill(service.engine_pid(), signal.SIGKILL)
    wait_until(lambda: not service.is_ready(), 5)
    refused = service.refine()
    assert refused.status_code == 503
    assert refused.json()["code"] == "engine-restarting"
    assert int(refused.headers["retry-after"]) >= 1
    assert httpx.get(service.url + "/health/live").status_code == 200
    wait_until(service.is_ready, START_S)
    assert service.refine().status_code == 200


@pytest.mark.slow
def test_a_request_outlives_its_engine(service: Served) -> None:
    """A job that is lost with its engine runs once more: 200, and the picture of a clean run."""
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(service.refine(**SLOW)))
    caller.start()
    wait_until(lambda: service.readiness().json()["pending"] == 1, 10)
    os.kill(service.engine_pid(), signal.SIGKILL)
    caller.join(2 * START_S)
    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].json() == service.refine(**SLOW).json()


def test_a_caller_who_goes_frees_the_engine(tiny_checkpoint: Path) -> None:
    """When the connection closes in the middle of a request, its job is aborted in the engine."""
    model = str(tiny_checkpoint)
    client = LocalEngineClient(EngineSettings(model=model))
    content = json.dumps(body(**SLOW)).encode()
    with running_server(client, model=model) as url:
        wait_until(lambda: client.health.state == "serving", START_S)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            wait_until(lambda: client.health.num_pending == 1, 10)
        wait_until(lambda: client.health.num_pending == 0, 1)
        wait_until(lambda: beat_of(client).num_aborted == 1, 10)
        beat = beat_of(client)
        assert (beat.num_running, beat.num_waiting) == (0, 0)


def test_an_aborted_job_costs_one_more_unet_call_at_most(tiny_checkpoint: Path) -> None:
    """Counted in the engine's process: after the abort it ends the running call and no more."""
    params = GenerationParams("", 1024, 640, 16, 1.0, 8.0, (1,))
    image = np.zeros((1024, 640, 3), dtype=np.uint8)

    async def scenario() -> tuple[int, int]:
        client = LocalEngineClient(EngineSettings(model=str(tiny_checkpoint)))
        await client.start()
        await client.wait_until("serving")
        while beat_of(client).phase != "serving":
            await asyncio.sleep(0.01)
        before = beat_of(client).num_unet_calls
        steps_seen = 0

        def cancel_after_two(done: Progress) -> None:
            nonlocal steps_seen
            steps_seen = done.step
            if done.step == 2:
                task.cancel()

        task = asyncio.ensure_future(
            client.generate(params, image, timeout_s=60, on_progress=cancel_after_two)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        while beat_of(client).num_aborted == 0:
            await asyncio.sleep(0.01)
        num_calls = beat_of(client).num_unet_calls - before
        await client.stop()
        return steps_seen, num_calls

    steps_seen, num_calls = asyncio.run(scenario())
    assert steps_seen == 2
    assert num_calls <= steps_seen + 1


def beat_of(client: LocalEngineClient) -> Heartbeat:
    """The engine's last heartbeat, or an empty one before the first."""
    return client.health.heartbeat or Heartbeat("none")


def test_sigterm_lets_running_requests_end(tiny_checkpoint: Path) -> None:
    """The first signal refuses new requests, answers those that run, and exits with 0."""
    with served(tiny_checkpoint, **PATIENT) as service:
        answers: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: answers.append(service.refine(**SLOW)))
        slow.start()
        wait_until(lambda: service.readiness().json()["pending"] == 1, 10)
        engine_pid = service.engine_pid()
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.readiness().json()["state"] == "draining", 5)
        refused = service.refine()
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert refused.headers["retry-after"]
        slow.join(240)
        assert [answer.status_code for answer in answers] == [200]
        assert service.process.wait(20) == 0
        wait_until(lambda: not Path(f"/proc/{engine_pid}").exists(), 5)


@pytest.mark.slow
@pytest.mark.parametrize("drain_timeout_s", ["0.3", "25"])
def test_a_drain_has_an_end(tiny_checkpoint: Path, drain_timeout_s: str) -> None:
    """After the drain's time, or at once on a second signal, what runs is answered 503."""
    with served(tiny_checkpoint, REFINE_DRAIN_TIMEOUT_S=drain_timeout_s) as service:
        answers: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: answers.append(service.refine(**SLOW)))
        slow.start()
        wait_until(lambda: service.readiness().json()["pending"] == 1, 10)
        service.process.send_signal(signal.SIGTERM)
        if drain_timeout_s == "25":
            wait_until(lambda: service.readiness().json()["state"] == "draining", 5)
            service.process.send_signal(signal.SIGTERM)
        slow.join(10)
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
            (503, "draining")
        ]
        assert service.process.wait(20) == 0
        assert not any("Traceback" in line for line in service.log)


def test_a_signal_to_the_whole_group_drains_too(tiny_checkpoint: Path) -> None:
    """As systemd sends it: the engine leaves the signal to the front, and the request ends well."""
    with served(tiny_checkpoint, **PATIENT) as service:
        answers: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: answers.append(service.refine(**SLOW)))
        slow.start()
        wait_until(lambda: service.readiness().json()["pending"] == 1, 10)
        for pid in (service.engine_pid(), service.process.pid):
            os.kill(pid, signal.SIGTERM)
        slow.join(240)
        assert [answer.status_code for answer in answers] == [200]
        assert service.process.wait(20) == 0


def test_no_engine_outlives_its_front(tiny_checkpoint: Path) -> None:
    """When the front is killed without a word, the engine's process ends by itself."""
    with served(tiny_checkpoint) as service:
        engine_pid = service.engine_pid()
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not _is_running(engine_pid), 15)


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["--host", "0.0.0.0"], 2, "set REFINE_API_KEYS"),  # noqa: S104 - that it is refused
        (["--port", "70000"], 2, "REFINE_PORT"),
        (["--model", "nothing-here"], 1, "no checkpoint 'nothing-here'"),
        (["--model", "lcm-dreamshaper-v7"], 1, "instant-refine models pull lcm-dreamshaper-v7"),
        (["--device", "cuda:7", "--port", "0"], 1, "no device 'cuda:7'"),
        (["--device", "toaster", "--port", "0"], 1, "no device is called 'toaster'"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    arguments: list[str], exit_code: int, sentence: str
) -> None:
    """A fault of the operator ends the command with its cure and no trace."""
    ended = subprocess.run(
        [COMMAND, "serve", *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == exit_code
    assert sentence in re.sub(r"\s+", " ", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_refine_writes_a_picture_and_tells_its_seed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The command refines a file without a server, and prints seed and stages."""
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(
        source
    )
    command: list[str | Path] = [
        COMMAND,
        "refine",
        source,
        "-p",
        "a boat",
        "--style",
        "ANIME",
        "--seed",
        "5",
    ]
    command += ["--model", tiny_checkpoint, "--width", "640", "-o", out]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    told = re.sub(r"\s+", " ", ended.stderr)
    assert "seed 5, 8 steps" in told
    for stage in ("queue", "text", "encode", "denoise", "vae"):
        assert f"{stage} " in told
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (640, 512))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", "3"], "steps must be an integer from 4 to 16"),
        (["--style", "NOPE"], "style must be one of"),
        (["--width", "99"], "width must be one of 512, 640 and 1024"),
        (["-o", "out.gif"], "must end in one of"),
    ],
)
def test_refine_refuses_what_the_api_refuses(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    """The command knows the same bounds, before it starts an engine."""
    source = tmp_path / "in.png"
    Image.new("RGB", (8, 8)).save(source)
    command: list[str | Path] = [
        COMMAND,
        "refine",
        source,
        "-p",
        "a",
        "-o",
        tmp_path / "out.png",
        *arguments,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1
    assert sentence in re.sub(r"\s+", " ", ended.stderr)


def test_doctor_finds_and_cures() -> None:
    """On this machine all is well; a taken port and a model that is not here are told."""
    well = subprocess.run(
        [COMMAND, "doctor"], capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "REFINE_PORT": "0", "REFINE_COMPILE": "full", "COLUMNS": "200"},
    )  # fmt: skip
    assert well.returncode == 0, well.stdout
    for subject in (
        "python",
        "torch",
        "device",
        "compiler",
        "memory",
        "disk",
        "checkpoint",
        "port",
        "keys",
    ):
        assert subject in well.stdout
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {"REFINE_PORT": port, "REFINE_MODEL": "lcm-dreamshaper-v7", "CXX": "no-g++"}
        environment["REFINE_COMPILE"] = "background"
        ill = subprocess.run(
            [COMMAND, "doctor"], capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, **environment, "COLUMNS": "200"},
        )  # fmt: skip
    assert ill.returncode == 1
    assert "is taken" in ill.stdout
    assert "install g++" in ill.stdout
    assert "instant-refine models pull lcm-dreamshaper-v7" in ill.stdout


def test_styles_and_models_are_listed() -> None:
    """Both lists tell the names that the options take."""
    for arguments, names in (
        (["styles"], ["ANIME", "VIBRANT"]),
        (["models", "list"], ["pocket", "lcm-dreamshaper-v7"]),
    ):
        ended = subprocess.run(
            [COMMAND, *arguments], capture_output=True, text=True, timeout=100, check=True,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        for name in names:
            assert name in ended.stdout
