"""The manifests in deploy/: every setting, path, port and probe in them is one of the service's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.front.app import create_app
from service.settings import Settings
from tests.fakes import FakeEngineClient

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile.cuda").read_text("utf-8")
SENDING_S = 10  # what the server gives the last answers after the drain


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((ROOT / "deploy" / name).read_text("utf-8")))


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    (deployment,) = documents("kubernetes/deployment.yaml")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)


def environment(container: dict[str, Any]) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_every_variable_is_a_setting(container: dict[str, Any]) -> None:
    """Compose and Kubernetes set nothing that the service does not read, and valid values."""
    compose = documents("compose.yaml")[0]["services"]["refine"]["environment"]
    for names in (environment(container), compose):
        known = {f"REFINE_{name.upper()}" for name in Settings.model_fields}
        assert names.keys() <= known
    given = {name: value for name, value in environment(container).items() if value is not None}
    Settings(**{name.removeprefix("REFINE_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]


def test_probes_ask_what_the_service_answers(container: dict[str, Any]) -> None:
    """Start and life are the front's, readiness is the engine's; all are open without a key."""
    app = create_app(Settings(api_keys="a-key"), FakeEngineClient())
    paths = {getattr(route, "path", None) for route in app.routes} | set(app.openapi()["paths"])
    asked = {
        name: container[name]["httpGet"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    assert {probe["path"] for probe in asked.values()} <= paths
    (port,) = container["ports"]
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert f"EXPOSE {port['containerPort']}" in DOCKERFILE
    assert port["containerPort"] == Settings().port


def test_the_grace_period_is_longer_than_the_drain(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """Nobody is killed in the middle: delay, drain and the last answers fit."""
    given = environment(container)
    needed = sum(float(given[name] or 0) for name in ("REFINE_DRAIN_DELAY_S", "REFINE_DRAIN_S"))
    assert pod["terminationGracePeriodSeconds"] >= needed + SENDING_S
    grace = documents("compose.yaml")[0]["services"]["refine"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) >= Settings().drain_s + SENDING_S


def test_nothing_runs_with_more_rights_than_it_needs(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """Not root, no capability, a read-only root with the two places that are written to."""
    (uid,) = set(re.findall(r"(?m)^USER (\d+):\1$", DOCKERFILE))
    assert pod["securityContext"]["runAsUser"] == int(uid)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/cache", "/tmp"}  # noqa: S108 - a mount point
    assert "VOLUME /cache" in DOCKERFILE
    for service in documents("compose.yaml")[0]["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(published.startswith("127.0.0.1:") for published in service.get("ports", []))


def test_a_gpu_and_memory_are_limited(container: dict[str, Any]) -> None:
    """A pod asks for one GPU, and for no more memory than its limit."""
    resources = container["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    asked, limit = (
        int(resources[kind]["memory"].removesuffix("Gi")) for kind in ("requests", "limits")
    )
    assert asked <= limit


def test_names_hold_together(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The service selects the pods, the claim exists, and compose mounts folders that are there."""
    (deployment,) = documents("kubernetes/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service, budget, claim = documents("kubernetes/service.yaml")
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    claimed = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claimed == [claim["metadata"]["name"]]
    compose = documents("compose.yaml")[0]
    assert (ROOT / "deploy" / compose["services"]["refine"]["build"]["context"]).resolve() == ROOT
    for entry in compose["services"].values():
        for volume in entry.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / "deploy" / source).is_dir(), source
            else:
                assert source in compose["volumes"]
