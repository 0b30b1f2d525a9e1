"""What all parts use: the cluster, the namespace of the engines, and a file that takes every finding at once."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_cluster.gpus import FULL_ROOM, SIMULATED, describe_gpu, node_with_real_gpu
from benchmarks.measure import machine
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant, model_at
from tests.cluster.installation import ROOT, open_cluster

__all__ = ["NAMESPACE", "ROOT", "Settings", "Workplace", "models", "open_workplace"]

NAMESPACE: Final = "vision"
_WATCH_SECONDS: Final = 0.5
_LOGGED: Final = 400_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says.

    Attributes:
        out: folder for all that is found.
        backend: of the targets; `onnxruntime` in a rehearsal without a GPU.
        is_quick: whether documents ask for a quick first engine.
        patience: factor of all time limits.
    """

    out: Path
    backend: str
    is_quick: bool
    patience: float


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The cluster and where findings go.

    Attributes:
        node: that has the GPU.
        product: of its GPU, as its label says.
        room: how often the GPU can be handed out.
    """

    settings: Settings
    cluster: Cluster
    node: str
    product: str
    room: int

    @property
    def is_real(self) -> bool:
        """Whether there is a GPU."""
        return self.node != SIMULATED

    def tenant(self, model: str) -> Tenant:
        """Return the namespace, with one of the models and its digest: a quick build begins earlier with that."""
        source = model_at(self.cluster, f"s3://models/ocr/{model}.onnx") | {"sha256": _digest(model)}
        return Tenant(cluster=self.cluster, namespace=NAMESPACE, model=source)

    def until(self, condition: Callable[[], object], what: str, *, seconds: float) -> None:
        """Wait until something holds; fail with all that the namespace has to say where it does not in time."""
        self.tenant("cls").until(condition, what, seconds=seconds * self.settings.patience)

    def note(self, part: str, finding: str, **figures: object) -> None:
        """Keep and print what was found."""
        line = json.dumps({"at": round(time.time(), 2), "part": part, "finding": finding, **figures}, default=str)
        with (self.settings.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line[:1500], flush=True)

    def note_machine(self) -> None:
        """Keep what the figures are of."""
        info = self.cluster.get("node", self.node)
        labels = {name: value for name, value in info["metadata"]["labels"].items() if "nvidia.com" in name}
        self.note(
            "machine",
            "node",
            name=self.node,
            product=self.product,
            isReal=self.is_real,
            backend=self.settings.backend,
            quickStart=self.settings.is_quick,
            host=machine(),
            gpu=describe_gpu() if self.is_real else "",
            labels=labels,
            node=info["status"]["nodeInfo"],
            allocatable=info["status"]["allocatable"],
        )

    def hand_out(self, times: int) -> None:
        """Let the node's GPU be handed out so many times, as a device plugin that shares by time slicing does."""
        if self.is_real:
            done = self.cluster.run(ROOT / "hack/cluster", "up", "--gpu-replicas", str(times))
        else:
            done = self.cluster.run(ROOT / "hack/cluster", "gpus", self.node, f"nvidia.com/gpu={times}")
        assert done.returncode == 0, done.stdout + done.stderr
        shown = r"-o=jsonpath={.status.allocatable.nvidia\.com/gpu}"
        tenant = self.tenant("cls")
        command = ("get", "node", self.node, shown)
        self.until(lambda: tenant.kubectl(*command) == str(times), f"{times} can be handed out", seconds=60)

    @contextmanager
    def recording(self, part: str) -> Iterator[None]:
        """Write what changes meanwhile to `timeline.jsonl`, and what pods and events say to a file at the end."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(part, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(10)
            self._dump(part)

    def _watch(self, part: str, ended: threading.Event) -> None:
        seen: dict[str, str] = {}
        with (self.settings.out / "timeline.jsonl").open("a") as file:
            while not ended.wait(_WATCH_SECONDS):
                for name, state in self._states():
                    text = json.dumps(state)
                    if seen.get(name) != text:
                        seen[name] = text
                        file.write(json.dumps([round(time.time(), 2), part, name, state]) + "\n")
                        file.flush()

    def _states(self) -> Iterator[tuple[str, object]]:
        found = self.cluster.run("kubectl", "-n", NAMESPACE, "get", "ie,eb,job,deploy,pod", "-o=json")
        for one in json.loads(found.stdout)["items"] if found.returncode == 0 else ():
            yield f"{one['kind']}/{one['metadata']['name']}", _state(one["kind"], one.get("status", {}))

    def _dump(self, part: str) -> None:
        text = ""
        for words in (
            ("get", "ie,eb,job,deploy,pod,svc", "-o=wide"),
            ("describe", "ie,eb"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "--selector=enginesmith.io/engine", "--all-containers", "--prefix", "--tail=60"),
        ):
            text += self.cluster.run("kubectl", "-n", NAMESPACE, *words).stdout[-_LOGGED:] + "\n"
        operator = ("-n", "enginesmith-system", "logs", "deployment/enginesmith-operator", "--all-pods", "--tail=2000")
        text += self.cluster.run("kubectl", *operator).stdout[-_LOGGED:]
        (self.settings.out / f"{part}-cluster.txt").write_text(text)


def open_workplace(settings: Settings) -> Workplace:
    """Return the cluster's node with a real GPU; in a rehearsal the simulated one.

    Raises:
        SystemExit: there is none.
    """
    cluster = open_cluster()
    real = node_with_real_gpu(cluster)
    if real is None and settings.backend == "tensorrt":
        raise SystemExit("this cluster has no node with a real GPU: hack/cluster up on a machine that has one")
    node = real if real is not None and settings.backend == "tensorrt" else SIMULATED
    labels = cluster.get("node", node)["metadata"]["labels"]
    return Workplace(
        settings=settings,
        cluster=cluster,
        node=node,
        product=labels["nvidia.com/gpu.product"],
        room=FULL_ROOM if node != SIMULATED else int(labels["nvidia.com/gpu.count"]),
    )


def models() -> Path:
    """Return the folder with det.onnx, rec.onnx and cls.onnx."""
    return Path(subprocess.check_output([ROOT / "hack/fetch-models"], text=True).strip())


@cache
def _digest(model: str) -> str:
    return sha256((models() / f"{model}.onnx").read_bytes()).hexdigest()


def _state(kind: str, status: dict[str, Any]) -> object:
    """Return what of a status a reader of the timeline wants."""
    conditions = [
        [one["type"], one["status"], one.get("reason"), one.get("message", "")[:200]]
        for one in status.get("conditions", ())
        if kind in {"InferenceEngine", "EngineBuild"} or one["status"] != "True"
    ]
    targets = [[one.get("phase"), one.get("reason"), one.get("message", "")[:200]] for one in status.get("targets", ())]
    counts = {name: status[name] for name in ("replicas", "readyReplicas", "active", "succeeded") if status.get(name)}
    return [status.get("phase"), status.get("progress"), counts, targets, conditions]
