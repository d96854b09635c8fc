"""The files of infra/ hold together: no engine is here to start them, so their form and their names are checked."""

import re
import subprocess
from pathlib import Path

import yaml

INFRA = Path(__file__).parent.parent / "infra"


def test_compose_publishes_on_loopback_only_and_has_no_secret():
    text = (INFRA / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"database", "prefect", "mlflow", "worker"}
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    assert not re.search(r"PASSWORD: +[^$\s]", text)
    for service in services.values():
        for file in [service["env_file"]] if "env_file" in service else []:
            assert (INFRA / file).is_file()
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert source in yaml.safe_load(text)["volumes"] or source == "./data" or (INFRA / source).exists()
    kept = {volume.split(":")[1] for volume in services["worker"]["volumes"] if not volume.startswith("$")}
    assert kept >= {f"/project/{place}" for place in (".state", "runs", "artifacts", "reports", ".dvc/cache")}


def test_secrets_get_neither_into_git_nor_into_an_image():
    root = INFRA.parent
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/.env"], cwd=root)
    assert ignored.returncode == 0
    assert "**/.env" in (root / ".dockerignore").read_text().splitlines()


def test_names_are_those_of_the_code():
    from paperflows.sync import POOL
    from paperflows.tasks.environment import settings

    compose = (INFRA / "compose.yaml").read_text()
    assert f"work-pool create {POOL} " in compose and f"--pool {POOL}" in compose
    served = dict(line.split("=", 1) for line in (INFRA / "prefect" / "server.env").read_text().splitlines())
    ours = settings(Path("/project"))
    shared = served.keys() & ours.keys()
    assert len(shared) >= 6 and all(served[name] == ours[name] for name in shared)


def test_ray_version_is_the_pinned_one():
    cluster = yaml.safe_load((INFRA / "ray-cluster.yaml").read_text())
    pin = re.search(r"^ray==(\S+)", (INFRA.parent / "constraints.txt").read_text(), re.M)[1]
    assert cluster["spec"]["rayVersion"] == pin
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        (ray,) = group["template"]["spec"]["containers"]
        named = {e["name"]: e for e in ray["env"]}
        assert named["RAY_AUTH_MODE"]["value"] == "token" and "secretKeyRef" in named["RAY_AUTH_TOKEN"]["valueFrom"]
        (container,) = group["template"]["spec"]["containers"]
        assert {e["name"] for e in container["env"]} >= {"PAPERFLOWS_ROOT", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"}
