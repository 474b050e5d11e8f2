"""What is deployed on a cluster: limits that follow the slots, and manifests that say the same."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

pytest.importorskip("ray", reason="the extra [ray] is not installed")

from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

from service.ray_serve.deployment import at_a_front, build, build_front, engines

ROOT = Path(__file__).parents[2]
SENDING_S = 10  # what Serve gives the last answers after the drain


def options_of(application: Any) -> Any:
    return application._bound_deployment._deployment_config


@pytest.fixture(scope="module")
def plain() -> Any:
    return yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def manifest() -> Any:
    return yaml.safe_load((ROOT / "deploy/ray/rayservice.yaml").read_text("utf-8"))["spec"]


@pytest.fixture(scope="module")
def containers(manifest: Any) -> list[Any]:
    """The containers of head and workers."""
    cluster = manifest["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]


def test_limits_follow_the_engine_s_slots() -> None:
    """A replica has its slots and the next in line, more are started by its slots, the rest waits.

    What neither runs nor waits is refused: all numbers are the settings'.
    """
    settings = Settings(
        max_batch=8,
        queue_size=32,
        ray_min_engines=2,
        ray_max_engines=5,
        ray_gpus_per_engine=0.5,
        ray_cpus_per_engine=3,
        drain_timeout_s=40,
    )
    application = engines(settings)
    options = options_of(application)
    assert options.max_ongoing_requests == 9
    assert options.max_queued_requests == 32
    assert options.graceful_shutdown_timeout_s == 40
    scaling = options.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    assert scaling.get_target_ongoing_requests() == 8
    actor = application._bound_deployment.ray_actor_options
    assert (actor["num_gpus"], actor["num_cpus"]) == (0.5, 3)


def test_a_front_lets_in_what_the_engines_can_take() -> None:
    """Slots, queue and sockets fit into what Serve sends to it, so that it refuses by code."""
    settings = Settings(max_batch=8, queue_size=32, max_sockets=100, ray_max_engines=4)
    assert at_a_front(settings) > 4 * 8 + 32 + 100
    asked = {"max_batch": "8", "queue_size": "32", "max_sockets": "100", "ray_max_engines": "4"}
    assert options_of(build(asked)).max_ongoing_requests == at_a_front(settings)


@pytest.mark.parametrize("name", ["ray_gpu_per_engine", "host", "port", "ray"])
def test_an_argument_that_means_nothing_is_refused(name: str) -> None:
    """A misspelt name, or what Serve decides, does not pass in silence."""
    with pytest.raises(ValueError, match=name):
        build({name: "1"})


def test_several_devices_are_refused() -> None:
    """Ray gives each engine its own: a list of them would be ignored but for the first."""
    with pytest.raises(ValueError, match="name one"):
        engines(Settings(device="cuda:0,cuda:1"))


def test_a_front_without_keys_does_not_start() -> None:
    """Serve may listen to strangers: keys have to be there where the front runs."""
    with pytest.raises(ValueError, match="REFINE_API_KEYS"):
        build_front({})


def test_nothing_of_serve_ends_a_socket(plain: Any, manifest: Any) -> None:
    """Serve's time-out holds for sockets as well, which last as long as their painter draws."""
    assert "request_timeout_s" not in plain["http_options"]
    assert "request_timeout_s" not in yaml.safe_load(manifest["serveConfigV2"])["http_options"]
    assert plain["http_options"]["host"] == "127.0.0.1"


def test_kuberay_deploys_the_same_application(plain: Any, manifest: Any) -> None:
    """The application in the RayService is that of the config file, which builds; token on."""
    (application,) = yaml.safe_load(manifest["serveConfigV2"])["applications"]
    assert [application] == plain["applications"]
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    build(application["args"])
    cluster = manifest["rayClusterConfig"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    # The operator asks the dashboard's API: without it nothing would ever be deployed.
    assert cluster["headGroupSpec"]["rayStartParams"]["include-dashboard"] == "true"


def test_kuberay_has_room_for_what_is_deployed(manifest: Any) -> None:
    """A worker holds an engine and a front, and there may be a worker for each engine."""
    (application,) = yaml.safe_load(manifest["serveConfigV2"])["applications"]
    asked = Settings(**application["args"])
    (group,) = manifest["rayClusterConfig"]["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert worker["resources"]["requests"] == limits
    assert int(limits["cpu"]) >= asked.ray_cpus_per_engine + 1
    assert int(limits["nvidia.com/gpu"]) >= asked.ray_gpus_per_engine
    assert group["maxReplicas"] >= asked.ray_max_engines / asked.ray_gpus_per_engine
    assert group["minReplicas"] >= asked.ray_min_engines


def test_kuberay_s_pods_have_no_rights_and_time_to_end(manifest: Any, containers: Any) -> None:
    """Not root, no capability, keys from a secret alone, and no kill in the middle of a drain."""
    cluster = manifest["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    user = "USER 10001:10001"
    assert user in (ROOT / "Dockerfile.cuda").read_text("utf-8")
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"USER {pod['securityContext']['runAsUser']}:10001" == user
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        for entry in container.get("env", []):
            assert entry["name"].removeprefix("REFINE_").lower() in Settings.model_fields
            assert "secretKeyRef" in entry["valueFrom"]
    grace_s = workers["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= Settings().drain_timeout_s + SENDING_S


def test_kuberay_s_probes_are_ours(manifest: Any, containers: Any) -> None:
    """Each pod is asked over HTTP for what Ray answers without its token: the image has no wget."""
    port = yaml.safe_load(manifest["serveConfigV2"])["http_options"]["port"]
    for container in containers:
        for kind in ("livenessProbe", "readinessProbe"):
            asked = container[kind]["httpGet"]
            assert (asked["path"] in PUBLIC_EXACT_PATHS) == (asked["port"] == 52365)
    assert containers[1]["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": port}
