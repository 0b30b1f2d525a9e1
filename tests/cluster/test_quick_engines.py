"""`build.quickStart` on a real cluster under steady requests: which engine serves when, and what a client sees.

The operator is one whose table says that ONNX Runtime has optimization levels (`fake_levels_operator.py`).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.installation import ROOT
from tests.cluster.rollouts import ENGINE_NAME, NEXT, TARGET, answer_on, apply, target
from tests.cluster.traffic import steady_traffic

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("levels_operator", "hardware")]

_PROGRAM = Path(__file__).with_name("fake_levels_operator.py")
_QUICK: dict[str, Any] = {"build": {"quickStart": True}}


@pytest.fixture
def levels_operator(
    cluster: Cluster, images: dict[str, str], namespace: str, no_operator: None, tmp_path: Path
) -> Iterator[None]:
    """The operator with levels for ONNX Runtime, as a process of this machine."""
    assert no_operator is None
    version = _locked_version()
    toolchain = {"backend": "onnxruntime", "version": version, "image": images["enginesmith/runtime"]}
    metadata = {"name": "enginesmith-toolchains", "namespace": namespace}
    data = {"ort": yaml.safe_dump(toolchain)}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    # The installed policies know another catalog and another operator.
    cluster.kubectl("label", "namespace", namespace, "enginesmith.io/admission=exempt")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_definitions())
    store = {"bucket": "engines", "region": "us-east-1", "secretRef": {"name": "s3"}}
    store["endpoint"] = cluster.s3["AWS_ENDPOINT_URL"]
    config = tmp_path / "operator.yaml"
    config.write_text(yaml.safe_dump({"store": {"default": {"s3": store}}, "healthPort": 0}))
    variables = {**os.environ, **cluster.environment}
    with (tmp_path / "operator.log").open("w") as log:
        command = [sys.executable, str(_PROGRAM), str(config), namespace]
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            cluster.define_kinds()


def _definitions() -> str:
    return subprocess.check_output([sys.executable, str(_PROGRAM), "crds"], text=True)


def _locked_version() -> str:
    lines = (ROOT / "requirements" / "image-runtime.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("onnxruntime=="))


def _level_of(tenant: Tenant) -> dict[str, int]:
    """Return the optimization level of each build, by the engine's key."""
    requests = [one["spec"]["request"] for one in tenant.get("enginebuilds")["items"]]
    return {one["engineKey"]: one["options"]["optimizationLevel"] for one in requests}


def _with_digest(tenant: Tenant, models: Path) -> Document:
    return {**tenant.model, "sha256": sha256((models / "cls.onnx").read_bytes()).hexdigest()}


def _until_answered(tenant: Tenant) -> None:
    tenant.until(lambda: tenant.condition(ENGINE_NAME, "Ready").get("status") == "True", "requests are answered")


def test_a_quick_engine_answers_first_and_the_full_one_takes_over_without_a_lost_request(
    tenant: Tenant, tmp_path: Path
) -> None:
    apply(tenant, **_QUICK)
    ((quick, level),) = tenant.until(lambda: _level_of(tenant).items(), "a build begins")
    assert level == 0
    _until_answered(tenant)
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, tmp_path / "answers") as traffic:
        answer_on(tenant, traffic, 1)
        tenant.until_ready(ENGINE_NAME)
        answer_on(tenant, traffic, 100)
    (full,) = target(tenant)["serving"]
    assert traffic.engines()[-1] == full != quick
    assert set(traffic.engines()) <= {quick, full}
    assert traffic.lost() == []
    # A busy machine can miss a probe, and the engine then serves twice: the same sentence, once for each time.
    told = {(one["type"], one["message"]) for one in tenant.events() if one["reason"] == "QuickEngine"}
    message = f"{TARGET}: serving the quick engine (optimization level 0); the full engine is being built"
    assert told == {("Normal", message)}
    tenant.until(lambda: _level_of(tenant) == {full: 3}, "the quick engine's build is forgotten")


def test_the_quick_build_begins_while_the_model_is_prepared(tenant: Tenant, ocr_models: Path) -> None:
    apply(tenant, **_QUICK, model=_with_digest(tenant, ocr_models))
    tenant.until(lambda: _level_of(tenant), "a build begins")
    (early,) = tenant.get("enginebuilds")["items"]
    assert early["spec"]["awaitsPreparation"]
    _until_answered(tenant)
    name, uid = early["metadata"]["name"], early["metadata"]["uid"]
    there = tenant.get("enginebuild", name)
    assert (there["metadata"]["uid"], there["status"]["phase"]) == (uid, "Succeeded")
    prepared = tenant.get("inferenceengine", ENGINE_NAME)["status"]["preparation"]["finishedAt"]
    assert early["metadata"]["creationTimestamp"] <= prepared
    print(f"created {early['metadata']['creationTimestamp']}, prepared {prepared}")  # noqa: T201 - how much it gains
    print(tenant.kubectl("logs", f"job/{name}"))  # noqa: T201 - the same


def test_a_model_that_its_preparation_finds_unfit_leaves_no_build(tenant: Tenant, ocr_models: Path) -> None:
    source = _with_digest(tenant, ocr_models)
    apply(tenant, **_QUICK, model=source, precision="fp16", verification={"limit": 1e-9})
    tenant.until(lambda: _level_of(tenant), "a build begins")
    tenant.until(lambda: target(tenant).get("phase") == "Refused", "the plan refuses the model")
    tenant.until(lambda: not _level_of(tenant), "the build that waited is gone")
    ended = {"Succeeded", "Failed"}
    tenant.until(lambda: {one["status"]["phase"] for one in tenant.get("pods")["items"]} <= ended, "so is its pod")
    assert "PrecisionBeyondLimit" in target(tenant)["message"]


@pytest.mark.extended
def test_on_one_gpu_the_quick_engine_serves_until_there_is_another(tenant: Tenant, tmp_path: Path) -> None:
    _offer(tenant, "nvidia.com/gpu=1")
    apply(tenant, **_QUICK, rollout={"whenFull": "replace"})
    _until_answered(tenant)
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, tmp_path / "answers") as traffic:
        answer_on(tenant, traffic, 1)
        waits = tenant.until(partial(_waiting, tenant), "the full build waits")
        answer_on(tenant, traffic, 100)
        (quick,) = traffic.engines()
        _offer(tenant)
        tenant.until_ready(ENGINE_NAME)
        answer_on(tenant, traffic, 100)
        # A change with one GPU: the gap is that of the quick build, and the full one waits again.
        before = traffic.lost()
        _offer(tenant, "nvidia.com/gpu=1")
        apply(tenant, build=_QUICK["build"] | NEXT["build"], rollout={"whenFull": "replace"})
        tenant.until(lambda: len(traffic.engines()) > 2, "another engine answers")
        tenant.until(partial(_waiting, tenant), "the full build waits again")
        answer_on(tenant, traffic, 100)
    assert waits["message"].startswith(
        "serving the quick engine (optimization level 0); no free nvidia.com/gpu on node"
    )
    assert waits["engines"][0]["servingQuick"]
    assert waits["serving"] == [quick]
    assert before == []
    assert _level_of(tenant)[traffic.engines()[-1]] == 0
    assert {one.code for one in traffic.lost()} <= {"UNAVAILABLE"}
    print(f"gap {traffic.gap_seconds():.1f} s")  # noqa: T201 - shows the cost in the test's output


def _waiting(tenant: Tenant) -> dict[str, Any] | None:
    """Return the target's status while the full engine's build finds no GPU."""
    seen = target(tenant)
    return seen if seen.get("reason") == "NoFreeGPU" else None


def _offer(tenant: Tenant, *counts: str) -> None:
    changed = tenant.cluster.run(ROOT / "hack/cluster", "gpus", "gpu-l4", *counts)
    assert changed.returncode == 0, changed.stderr
    shown = r"-o=jsonpath={.status.allocatable.nvidia\.com/gpu}"
    want = counts[0].partition("=")[2] if counts else "2"
    tenant.until(lambda: tenant.cluster.kubectl("get", "node", "gpu-l4", shown) == want, "the GPUs are counted")
