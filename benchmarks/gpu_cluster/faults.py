"""What goes wrong on a node: a pod deleted, kubelet away, the GPU's memory taken, images that are not what they say."""

import subprocess
import sys
import time
from functools import partial
from typing import Final

from benchmarks.gpu_cluster.asking import more_answers, seen, steadily
from benchmarks.gpu_cluster.documents import facts, serves_full_engine
from benchmarks.gpu_cluster.installing import LIES
from benchmarks.gpu_cluster.workplace import ROOT, Workplace
from tests.cluster.engines import Document, Tenant

__all__ = ["run"]

_PART: Final = "faults"
_AWAY_SECONDS: Final = 12
_LABELS_THAT_LIE: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "another-gpu": ("NVIDIA-L40S", {"nvidia.com/gpu.product": "NVIDIA-L40S"}),
    "old-driver": (
        "",
        {
            "nvidia.com/cuda.driver-version.full": "470.82.01",
            "nvidia.com/cuda.driver-version.major": "470",
            "nvidia.com/cuda.driver-version.minor": "82",
            "nvidia.com/cuda.driver-version.revision": "01",
            "nvidia.com/cuda.driver.major": "470",
            "nvidia.com/cuda.driver.minor": "82",
            "nvidia.com/cuda.driver.rev": "01",
        },
    ),
}
"""The product that an engine asks for (empty: the real one) and the node's labels meanwhile."""


def run(work: Workplace) -> None:
    """Make one fault after the other; each is looked at whatever became of those before."""
    failed = []
    for fault in (_delete_pod, _stop_kubelet, _lie, _take_memory, _mislabel):
        try:
            fault(work)
        except BaseException as error:  # noqa: BLE001 - pytest's failures are not Exceptions
            failed.append(fault.__name__)
            work.note(_PART, f"{fault.__name__.strip('_')} failed", error=str(error)[-1500:])
    assert not failed, failed


def _delete_pod(work: Workplace) -> None:
    tenant = work.tenant("cls")
    with steadily(work, "pod-deleted") as traffic:
        pod = _pods(tenant, "cls")[0]
        begun = time.monotonic()
        tenant.kubectl("delete", "pod", pod, "--wait=false")
        work.until(lambda: pod not in _pods(tenant, "cls"), "the pod is gone", seconds=60)
        work.until(lambda: serves_full_engine(tenant, "cls"), "all replicas serve again", seconds=60)
        seconds = round(time.monotonic() - begun, 2)
        more_answers(work, traffic, 120)
    work.note(_PART, "pod deleted", seconds=seconds, client=seen(traffic))


def _stop_kubelet(work: Workplace) -> None:
    tenant = work.tenant("cls")
    with steadily(work, "kubelet-away") as traffic:
        _node(work, "stop")
        time.sleep(_AWAY_SECONDS)
        begun = time.monotonic()
        _node(work, "start")
        work.until(lambda: serves_full_engine(tenant, "cls"), "all replicas serve again", seconds=60)
        seconds = round(time.monotonic() - begun, 2)
        more_answers(work, traffic, 60)
    work.note(_PART, "kubelet away", awaySeconds=_AWAY_SECONDS, seconds=seconds, client=seen(traffic))
    # Its device plugin registers again only now.
    work.hand_out(work.room)


def _node(work: Workplace, action: str) -> None:
    done = work.cluster.run(ROOT / "hack/cluster", "node", work.node, action)
    assert done.returncode == 0, done.stdout + done.stderr


def _lie(work: Workplace) -> None:
    """Ask for the toolchains whose images are not what the catalog says, one engine each."""
    tenant = work.tenant("cls")
    for name, claim in LIES.items():
        target: Document = {"name": "gpu", "backend": "tensorrt", "gpu": {"product": work.product}}
        version: str = claim["version"]
        tenant.apply(f"lie-{name}", [target], toolchain={"tensorrt": f"=={version}"}, precision="fp32")
    for name in LIES:
        engine = f"lie-{name}"
        work.until(partial(_has_failed, tenant, engine), f"{engine} is refused", seconds=90)
        work.note(_PART, f"image that lies: {name}", status=facts(tenant, engine))
        tenant.kubectl("delete", "inferenceengine", engine, "--wait=false")


def _has_failed(tenant: Tenant, engine: str) -> bool:
    targets = (tenant.get("inferenceengine", engine).get("status") or {}).get("targets") or ()
    return any(one.get("phase") in {"Failed", "Refused"} for one in targets)


def _take_memory(work: Workplace) -> None:
    """Fill the GPU's memory from a process outside the cluster, and start an engine meanwhile."""
    if not work.is_real:
        return
    tenant = work.tenant("cls")
    command = [sys.executable, "-m", "benchmarks.gpu_cluster.take_memory"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None
        try:
            taken = taker.stdout.readline().strip()
            pod = _pods(tenant, "cls")[0]
            tenant.kubectl("delete", "pod", pod, "--wait=false")
            time.sleep(25)
            work.note(
                _PART, "memory taken", taken=taken, status=facts(tenant, "cls"), pods=tenant.kubectl("get", "pods")
            )
        finally:
            taker.terminate()
            taker.wait(20)
    begun = time.monotonic()
    work.until(lambda: serves_full_engine(tenant, "cls"), "all replicas serve again", seconds=120)
    work.note(_PART, "memory given back", seconds=round(time.monotonic() - begun, 2), status=facts(tenant, "cls"))


def _mislabel(work: Workplace) -> None:
    """Have the node's labels name another GPU, then a driver that is too old, and ask for an engine there."""
    if not work.is_real:
        return
    tenant, node = work.tenant("cls"), f"node/{work.node}"
    for name, (product, lies) in _LABELS_THAT_LIE.items():
        found = work.cluster.get("node", work.node)["metadata"]["labels"]
        truth = [f"{label}={found[label]}" if label in found else f"{label}-" for label in lies]
        tenant.kubectl("label", node, "--overwrite", *(f"{label}={value}" for label, value in lies.items()))
        try:
            target: Document = {"name": "gpu", "backend": "tensorrt", "gpu": {"product": product or work.product}}
            engine = f"label-{name}"
            tenant.apply(engine, [target], toolchain={"tensorrt": ">=10.6,<10.7"}, precision="fp32")
            work.until(partial(_has_failed, tenant, engine), f"{engine} is refused", seconds=60)
            work.note(_PART, f"label that lies: {name}", labels=lies, status=facts(tenant, engine))
        finally:
            tenant.kubectl("label", node, "--overwrite", *truth)
            tenant.kubectl("delete", "inferenceengine", engine, "--wait=false")


def _pods(tenant: Tenant, engine: str) -> list[str]:
    """Return the names of the pods that serve an engine."""
    found = tenant.get("pods", f"--selector=enginesmith.io/engine={engine},enginesmith.io/target")["items"]
    return [one["metadata"]["name"] for one in found if one["status"]["phase"] == "Running"]
