"""The manifests in deploy/: their settings, paths, ports and probes are the service's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.front.app import create_app
from service.settings import Settings
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile.cuda").read_text("utf-8")
SENDING_S = 10  # the server's time for the last responses after the drain


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
    """Compose and Kubernetes set only variables that the service reads, to valid values."""
    compose = documents("compose.yaml")[0]["services"]["refine"]["environment"]
    for names in (environment(container), compose):
        known = {f"REFINE_{name.upper()}" for name in Settings.model_fields}
        assert names.keys() <= known
    given = {name: value for name, value in environment(container).items() if value is not None}
    Settings(**{name.removeprefix("REFINE_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]


def test_probes_match_routes(container: dict[str, Any]) -> None:
    """Startup and liveness probe the front, readiness the engine; none needs a key."""
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
    """Delay, drain and the last responses fit into the grace period."""
    given = environment(container)
    needed = sum(
        float(given[name] or 0) for name in ("REFINE_DRAIN_DELAY_S", "REFINE_DRAIN_TIMEOUT_S")
    )
    assert pod["terminationGracePeriodSeconds"] >= needed + SENDING_S
    grace = documents("compose.yaml")[0]["services"]["refine"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) >= Settings().drain_timeout_s + SENDING_S


def test_containers_have_few_rights(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Containers run as the image's user, without capabilities, on a read-only root."""
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


def test_names_are_consistent(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The service selects the pods, the claim exists, and Compose mounts existing folders."""
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


def test_prometheus_and_grafana_reach_their_targets() -> None:
    """The scraper without a key gets the metrics; names and folders of both are consistent."""
    services = documents("compose.yaml")[0]["services"]
    (scraped,) = documents("prometheus/prometheus.yml")[0]["scrape_configs"]
    (target,) = scraped["static_configs"][0]["targets"]
    assert target == f"refine:{Settings().port}"
    assert "authorization" not in scraped
    given = services["refine"]["environment"]
    settings = Settings(api_keys=SecretStr(KEY), metrics_no_auth=given["REFINE_METRICS_NO_AUTH"])
    with TestClient(create_app(settings, FakeEngineClient()), f"http://{target}") as http:
        assert http.get(scraped.get("metrics_path", "/metrics")).status_code == 200
        assert http.get("/v1/models").status_code == 401
    mounted = dict(
        volume.removesuffix(":ro").split(":")
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
    )
    (rules,) = documents("prometheus/prometheus.yml")[0]["rule_files"]
    folder, name = rules.rsplit("/", 1)
    assert mounted["./prometheus"] == folder
    assert (ROOT / "deploy/prometheus" / name).is_file()
    (source,) = documents("grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (boards,) = documents("grafana/provisioning/dashboards/instant-refine.yaml")[0]["providers"]
    assert boards["options"]["path"] == mounted["./grafana"]
    assert list((ROOT / "deploy/grafana").glob("*.json"))
