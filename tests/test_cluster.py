"""Engines on Ray: the same service, with replicas in other processes that may die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from service.cluster.app import build
from tests.sdk import wire
from tests.sdk.conftest import modules
from tests.sdk.test_python_sdk import call
from tests.sdk.test_typescript_sdk import Sdk, job_of, process
from tests.servers import KEY, START_S, wait_until
from tests.test_service import ROUTE, Served, body, served

__all__ = ["modules", "process"]  # fixtures: the TypeScript SDK and its process

pytestmark = pytest.mark.slow

pytest.importorskip("ray", reason="the extra [ray] is not installed")

ROOT = Path(__file__).parents[1]
NUM_ENGINES = 2
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
FIELDS = {
    "/lcm-instant-refine": wire.ALL,
    "/generations-lcm": wire.LEAST,
    "/lcm-inpainting": wire.INPAINT,
    "/lcm-upscale": wire.UPSCALE,
}


@pytest.fixture(scope="module")
def cluster(tiny_checkpoint: Path) -> Iterator[Served]:
    """`instant-refine serve` with a Ray cluster of its own and two engines on it."""
    settings = {
        "REFINE_RAY": "local",
        "REFINE_RAY_MIN_ENGINES": str(NUM_ENGINES),
        "REFINE_RAY_CPUS_PER_ENGINE": "0.5",
        "REFINE_API_KEYS": KEY,
    }
    with served(tiny_checkpoint, **settings) as service:
        wait_until(lambda: num_serving(service) == NUM_ENGINES, START_S)
        yield service
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)
        wait_until(lambda: not replicas(), 30)


def replicas() -> set[int]:
    """The processes of the engine's replicas; Ray names them after the deployment."""
    found = set()
    for candidate in psutil.process_iter(["cmdline"]):
        words = " ".join(candidate.info["cmdline"] or [])
        if words.startswith("ray::ServeReplica:instant-refine:engine"):
            found.add(candidate.pid)
    return found


def num_serving(service: Served) -> int:
    return len(service.readiness().json()["engines"])


def refine(service: Served, seed: int) -> httpx.Response:
    return httpx.post(service.url + ROUTE, json=body(seed=seed), headers=AUTHORIZED, timeout=60)


@pytest.mark.parametrize("route", FIELDS)
def test_both_sdks_work_through_ray(
    cluster: Served, process: subprocess.Popen[str], route: str
) -> None:
    """The official clients, unmodified, get pictures from engines on Ray by every route."""
    by_python = call(cluster.url, route, FIELDS[route])
    assert by_python.status_code == 200
    assert by_python.object.lcm_generation_job.image_data_url[0].startswith("data:image/jpeg;")
    by_typescript = job_of(Sdk(process, cluster.url).call(route, FIELDS[route]))
    assert wire.cut(by_typescript)


def test_ray_changes_no_picture(cluster: Served, tiny_checkpoint: Path) -> None:
    """The same request gives the same answer, to the byte, as from an engine without Ray."""
    with served(tiny_checkpoint) as plain:
        expected = plain.refine(seed=5).json()
    assert refine(cluster, 5).json() == expected


def test_refusals_are_those_of_the_service(cluster: Served) -> None:
    """A missing key, a wrong field and a deadline that has passed are answered as ever."""
    url = cluster.url + ROUTE
    assert httpx.post(url, json=body()).json()["code"] == "access-denied"
    wrong = httpx.post(url, json=body(steps=3), headers=AUTHORIZED)
    assert (wrong.status_code, wrong.json()["path"]) == (400, "$.steps")
    late = httpx.post(url, json=body(), headers={**AUTHORIZED, "X-Request-Timeout-Ms": "1"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")


def test_a_killed_replica_loses_no_request(
    cluster: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under load a replica is killed: all is answered 200, and a new one takes its place."""
    expected = [refine(cluster, seed).json() for seed in range(4)]
    victim = min(replicas())
    with ThreadPoolExecutor(6) as users:
        answers = [users.submit(refine, cluster, n % 4) for n in range(36)]
        wait_until(lambda: sum(answer.done() for answer in answers) >= 6, 60)
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: num_serving(cluster) < NUM_ENGINES, 10)
        wait_until(lambda: num_serving(cluster) == NUM_ENGINES, START_S)
        with capsys.disabled():  # 15 s are wanted, which other work on the machine may spoil
            print(f"\n  a new replica serves after {time.monotonic() - killed_at:.1f} s")
        for number, answer in enumerate(answers):
            assert answer.result().status_code == 200
            assert answer.result().json() == expected[number % 4]


def test_a_sick_engine_ends_its_replica(cluster: Served) -> None:
    """When the engine's process dies its replica goes with it, and another takes its place."""
    victim = min(replicas())
    (engine,) = psutil.Process(victim).children()
    engine.kill()
    wait_until(lambda: victim not in replicas(), 15)
    wait_until(lambda: num_serving(cluster) == NUM_ENGINES, 60)
    assert refine(cluster, 1).status_code == 200


@contextmanager
def deployed(config: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """`serve run` with a config file, as `serve deploy` does it on a cluster; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        config["http_options"] |= {"host": "127.0.0.1", "port": free.getsockname()[1]}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("serve")), "run", str(path)]
    environment = {**os.environ, "RAY_ADDRESS": "local"}  # not the cluster of the other tests
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield f"http://127.0.0.1:{config['http_options']['port']}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_the_config_file_serves_with_a_front_as_ingress(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """`serve deploy` with our file, its GPU taken out, answers the official SDK."""
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    config["applications"][0]["args"] |= {
        "model": str(tiny_checkpoint),
        "device": "cpu",
        "api_keys": KEY,
        "ray_gpus_per_engine": "0",
        "ray_cpus_per_engine": "0.5",
    }

    def is_ready() -> bool:
        try:
            return httpx.get(url + "/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    with deployed(config, tmp_path) as url:
        wait_until(is_ready, START_S)
        answer = call(url, "/lcm-instant-refine", wire.ALL)
        assert answer.object.lcm_generation_job.image_data_url
        assert httpx.get(url + "/v1/styles").json()["code"] == "access-denied"


def test_an_argument_that_is_no_setting_is_refused() -> None:
    """A misspelt name in the config file does not pass in silence."""
    with pytest.raises(ValueError, match="ray_gpu_per_engine"):
        build({"ray_gpu_per_engine": "1"})


def test_kuberay_deploys_the_same_application() -> None:
    """The application in the RayService is that of the config file; token on, dashboard off."""
    plain = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    manifest = yaml.safe_load((ROOT / "deploy/ray/rayservice.yaml").read_text())
    spec = manifest["spec"]
    assert yaml.safe_load(spec["serveConfigV2"])["applications"] == plain["applications"]
    assert spec["rayClusterConfig"]["rayVersion"] == version("ray")
    assert spec["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    head = spec["rayClusterConfig"]["headGroupSpec"]
    assert head["rayStartParams"]["include-dashboard"] == "false"
