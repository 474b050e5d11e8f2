"""Engines on Ray: the same service, with replicas in other processes that may die."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
import yaml

from tests.sdk.test_python_sdk import call
from tests.support import sdk_wire as wire
from tests.support.backends import NUM_ENGINES, Services, num_serving
from tests.support.servers import KEY, START_S, wait_until
from tests.support.sockets import greeted
from tests.whole_service.test_service import ROUTE, Served, body, served

pytestmark = [pytest.mark.slow, pytest.mark.alone]

pytest.importorskip("ray", reason="the extra [ray] is not installed")

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
REPLICA_NAME = "ray::ServeReplica:instant-refine:engine"
REPLICA_METHOD = "/ray.serve.ASGIService/HandleRequest"
HASTY = {
    "name": "engine",
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 2,
    },
}
"""The engines' scaling as we deploy it, but within seconds."""

REPLACED_STARTS = 4.0
"""Within so many starts of a service without Ray a new replica serves, beside six users."""


@pytest.fixture
def cluster(backend: str, services: Services) -> Served:
    """`instant-refine serve --ray local` with two engines on `pocket`."""
    return services.named(backend)


def replicas(service: Served) -> set[int]:
    """The processes of its engines' replicas; Ray names them after the deployment."""
    found = set()
    for candidate in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # one that has ended meanwhile
            if " ".join(candidate.cmdline()).startswith(REPLICA_NAME):
                found.add(candidate.pid)
    return found


def engines(service: Served) -> set[int]:
    """The engines' processes: each replica has one."""
    found = set()
    for replica in replicas(service):
        (engine,) = psutil.Process(replica).children()
        found.add(engine.pid)
    return found


def refine(service: Served, seed: int) -> httpx.Response:
    return httpx.post(service.url + ROUTE, json=body(seed=seed), headers=AUTHORIZED, timeout=240)


def test_two_replicas_are_two_processes_and_both_work(cluster: Served) -> None:
    """Torch is in the engines alone, one for each replica, and many requests keep both busy."""

    def has_torch(pid: int) -> bool:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()

    def seconds(pid: int) -> float:
        return float(psutil.Process(pid).cpu_times().user)

    assert len(replicas(cluster)) == len(engines(cluster)) == NUM_ENGINES
    assert len({cluster.process.pid, *replicas(cluster), *engines(cluster)}) == 1 + 2 * NUM_ENGINES
    assert all(map(has_torch, engines(cluster)))
    assert not any(map(has_torch, {cluster.process.pid, *replicas(cluster)}))
    before = {pid: seconds(pid) for pid in engines(cluster)}
    with ThreadPoolExecutor(4) as users:
        answers = list(users.map(lambda seed: refine(cluster, seed), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert all(seconds(pid) > spent + 0.2 for pid, spent in before.items())


def test_ray_listens_to_this_machine_alone(cluster: Served) -> None:
    """All is on loopback but a port of each replica, which asks for Ray's token like the rest."""
    family = psutil.Process(cluster.process.pid)
    open_ports: dict[int, set[int]] = {}
    for process in [family, *family.children(recursive=True)]:
        with suppress(psutil.Error):  # one that has ended meanwhile
            for listening in process.net_connections("tcp"):
                ip = ipaddress.ip_address(listening.laddr.ip)
                own = getattr(ip, "ipv4_mapped", None) or ip
                if listening.status == psutil.CONN_LISTEN and not own.is_loopback:
                    open_ports.setdefault(process.pid, set()).add(listening.laddr.port)
    assert open_ports.keys() == replicas(cluster)
    for (port,) in open_ports.values():
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            pytest.raises(grpc.RpcError) as refused,
        ):
            channel.unary_unary(REPLICA_METHOD)(b"", timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_ray_changes_no_picture(cluster: Served) -> None:
    """The same request gives the same answer, to the byte, as from an engine without Ray."""
    with served("pocket", REFINE_NUM_THREADS="1") as plain:
        expected = plain.refine(seed=5).json()
    assert refine(cluster, 5).json() == expected


def test_a_deadline_holds_over_ray(cluster: Served) -> None:
    """What cannot be ready in time is told, and the engine goes on with others."""
    url = cluster.url + ROUTE
    late = httpx.post(url, json=body(), headers={**AUTHORIZED, "X-Request-Timeout-Ms": "1"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
    assert refine(cluster, 1).status_code == 200


def test_a_killed_replica_loses_no_request(
    cluster: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under load a replica is killed: all is answered 200, and a new one takes its place.

    A painter's socket lives through it: sessions are the front's.
    """
    expected = [refine(cluster, seed).json() for seed in range(4)]
    victim = min(replicas(cluster))
    (orphan,) = psutil.Process(victim).children()
    with ThreadPoolExecutor(6) as users, greeted(cluster.url) as painter:
        answers = [users.submit(refine, cluster, n % 4) for n in range(24)]
        wait_until(lambda: sum(answer.done() for answer in answers) >= 4, 120)
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        painter.frame(1, seed=1)
        wait_until(lambda: num_serving(cluster) < NUM_ENGINES, 30)
        wait_until(lambda: num_serving(cluster) == NUM_ENGINES, START_S)
        elapsed_s = time.monotonic() - killed_at
        painter.result(1)
        for number, answer in enumerate(answers):
            assert answer.result().status_code == 200
            assert answer.result().json() == expected[number % 4]
    assert victim not in replicas(cluster)
    wait_until(lambda: not orphan.is_running(), 30)  # its device is free for the next one
    began = time.monotonic()
    with served("pocket"):
        start_s = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  a new replica serves after {elapsed_s:.1f} s, a plain service {start_s:.1f} s")
    assert elapsed_s < REPLACED_STARTS * start_s


def test_a_sick_engine_ends_its_replica(cluster: Served) -> None:
    """When the engine's process dies its replica goes with it, and another takes its place."""
    victim = min(replicas(cluster))
    (engine,) = psutil.Process(victim).children()
    engine.kill()
    wait_until(
        lambda: victim not in replicas(cluster) and len(replicas(cluster)) == NUM_ENGINES, START_S
    )
    wait_until(lambda: num_serving(cluster) == NUM_ENGINES, START_S)
    assert refine(cluster, 1).status_code == 200


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def head_node(environment: dict[str, str]) -> Iterator[str]:
    """`ray start --head` as `deploy/ray/serve.yaml` says; yield the address of its API."""
    port, api_port, agent_port = free_port(), free_port(), free_port()
    options = {
        "--port": port,
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": api_port,
        "--dashboard-agent-listen-port": agent_port,
        "--num-cpus": 2,
    }
    words = [f"{name}={value}" for name, value in options.items()]
    url = f"http://127.0.0.1:{api_port}"

    def answers() -> bool:
        assert node.poll() is None, "ray start has ended"
        try:
            return httpx.get(url + "/api/gcs_healthz").is_success
        except httpx.TransportError:
            return False

    with subprocess.Popen(
        [TOOLS / "ray", "start", "--head", "--block", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as node:
        try:
            wait_until(answers, START_S)
            yield url
        finally:
            node.terminate()
            node.wait(60)


def deploy(api: str, config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / "serve", "deploy", "--address", api, config],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@contextmanager
def crowd(url: str, num_users: int) -> Iterator[None]:
    """Users who ask again when they are answered, which must be with a picture."""
    is_over = threading.Event()

    def use(seed: int) -> None:
        while not is_over.is_set():
            answer = httpx.post(url + ROUTE, json=body(seed=seed), headers=AUTHORIZED, timeout=240)
            assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(num_users) as pool:
        users = [pool.submit(use, seed) for seed in range(num_users)]
        try:
            yield
        finally:
            is_over.set()
        for user in users:
            user.result()


def test_the_config_file_is_deployed_with_a_front_as_ingress(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """`serve deploy` with our file, its GPU taken out, serves SDK and socket.

    Who has not Ray's token deploys nothing. The service's keys are the node's, not the file's.
    Requests that wait bring a second engine.
    """
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    config["http_options"]["port"] = free_port()
    config["applications"][0]["args"] |= {
        "model": str(tiny_checkpoint),
        "device": "cpu",
        "max_batch": "1",
        "ray_gpus_per_engine": "0",
        "ray_cpus_per_engine": "0.5",
        "ray_max_engines": "2",
        "deadline_s": "240",
    }
    config["applications"][0]["deployments"] = [HASTY]
    path, url = tmp_path / "serve.yaml", f"http://127.0.0.1:{config['http_options']['port']}"
    path.write_text(yaml.safe_dump(config))
    token = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def is_ready() -> bool:
        try:
            return httpx.get(url + "/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    with head_node({**token, "REFINE_API_KEYS": KEY}) as api:
        stranger = deploy(api, path, **{**token, "RAY_AUTH_TOKEN": secrets.token_hex(32)})
        assert stranger.returncode != 0
        assert "auth" in (stranger.stdout + stranger.stderr).lower()
        deployed = deploy(api, path, **token)
        assert deployed.returncode == 0, deployed.stderr
        wait_until(is_ready, START_S)
        answer = call(url, "/lcm-instant-refine", wire.ALL)
        assert answer.object.lcm_generation_job.image_data_url
        assert httpx.get(url + "/v1/styles").json()["code"] == "access-denied"
        with greeted(url) as painter:
            painter.frame(1, seed=1)
            painter.result(1)
        with crowd(url, 6):
            wait_until(
                lambda: len(httpx.get(url + "/health/ready").json()["engines"]) == 2, START_S
            )
