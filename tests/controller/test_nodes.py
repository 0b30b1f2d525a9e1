"""Nodes whose labels lag, lie and vanish: what plans see of them, and when."""

from datetime import UTC, datetime
from typing import Any

from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.label_mapping import load_label_mapping

_GFD = {
    "nvidia.com/gpu.product": "NVIDIA-L4",
    "nvidia.com/gpu.count": "2",
    "nvidia.com/gpu.memory": "23034",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "9",
    "nvidia.com/cuda.driver-version.major": "580",
    "nvidia.com/cuda.driver-version.minor": "95",
    "nvidia.com/cuda.driver-version.revision": "05",
    "nvidia.com/cuda.driver-version.full": "580.95.05",
    "nvidia.com/gfd.timestamp": "1700000000",
}
_GRACE = 120.0


class _Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def _node(
    labels: dict[str, str], *, gpus: int = 2, age: float = 86_400.0, clock: _Clock, cordoned: bool = False
) -> dict[str, Any]:
    made = datetime.fromtimestamp(clock.now - age, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "kind": "Node",
        "metadata": {
            "name": "gpu-1",
            "uid": "u1",
            "creationTimestamp": made,
            "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", **labels},
        },
        "spec": {"unschedulable": cordoned},
        "status": {
            "capacity": {"nvidia.com/gpu": str(gpus)},
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _memory(clock: _Clock) -> NodeMemory:
    return NodeMemory(load_label_mapping(), grace_seconds=_GRACE, clock=clock)


def _only(memory: NodeMemory) -> NodeFacts:
    (facts,) = memory.facts()
    return facts


def test_labels_that_are_gone_for_a_minute_change_nothing() -> None:
    clock = _Clock()
    memory = _memory(clock)
    assert memory.observe(_node(_GFD, clock=clock))
    before = _only(memory)
    clock.now += 10
    assert not memory.observe(_node({}, clock=clock))
    assert _only(memory) == before
    clock.now += 60
    assert not memory.settle()
    assert not memory.observe(_node(_GFD, clock=clock))
    assert memory.next_change() is None
    assert _only(memory) == before


def test_labels_that_stay_away_are_believed_to_be_gone_in_the_end() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    memory.observe(_node({}, clock=clock))
    assert memory.next_change() == _GRACE
    clock.now += _GRACE - 1
    assert not memory.settle()
    # Another heartbeat without labels does not make the grace period longer.
    memory.observe(_node({}, clock=clock))
    clock.now += 1
    assert memory.settle()
    assert _only(memory).product is None


def test_a_restarted_kubelet_that_hands_out_no_gpu_for_a_moment_changes_nothing() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    before = _only(memory)
    assert not memory.observe(_node(_GFD, gpus=0, clock=clock))
    assert _only(memory) == before


def test_what_else_changes_while_labels_are_gone_shows_at_once() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    assert memory.observe(_node({}, clock=clock, cordoned=True))
    assert _only(memory).is_cordoned
    assert _only(memory).product == "NVIDIA-L4"


def test_an_old_driver_shows_at_once() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    old = _GFD | {
        "nvidia.com/cuda.driver-version.major": "470",
        "nvidia.com/cuda.driver-version.minor": "82",
        "nvidia.com/cuda.driver-version.revision": "01",
        "nvidia.com/cuda.driver-version.full": "470.82.01",
    }
    assert memory.observe(_node(old, clock=clock))
    assert _only(memory).driver == "470.82.01"


def test_a_new_gpu_node_is_not_shown_before_it_says_which_gpu_it_has() -> None:
    clock = _Clock()
    memory = _memory(clock)
    assert not memory.observe(_node({}, age=5, clock=clock))
    assert memory.facts() == ()
    clock.now += 40
    assert memory.observe(_node(_GFD, age=45, clock=clock))
    assert _only(memory).product == "NVIDIA-L4"


def test_a_gpu_node_that_never_says_what_it_has_shows_after_the_grace_period() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node({}, age=5, clock=clock))
    clock.now += _GRACE
    assert memory.settle()
    assert _only(memory).product is None


def test_an_old_node_without_labels_shows_at_once_after_a_restart_of_the_operator() -> None:
    clock = _Clock()
    memory = _memory(clock)
    assert memory.observe(_node({}, clock=clock))
    assert _only(memory).product is None


def test_a_heartbeat_changes_nothing() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    beat = _node(_GFD, clock=clock)
    beat["status"]["conditions"].append({"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "now"})
    assert not memory.observe(beat)


def test_a_node_of_the_same_name_is_another_node() -> None:
    clock = _Clock()
    memory = _memory(clock)
    memory.observe(_node(_GFD, clock=clock))
    replaced = _node({}, gpus=0, clock=clock)
    replaced["metadata"]["uid"] = "u2"
    assert memory.observe(replaced)
    assert _only(memory).product is None
    assert not memory.forget("gpu-1", "u1")
    assert memory.forget("gpu-1", "u2")


def test_a_node_that_dra_serves_says_so_once_its_slices_are_known() -> None:
    clock = _Clock()
    memory = _memory(clock)
    assert memory.observe(_node(_GFD, gpus=0, clock=clock))
    assert _only(memory).dra == ""

    devices = [{"name": "gpu-0"}, {"name": "gpu-1"}]
    memory.know_slices(
        [
            {"spec": {"driver": "gpu.nvidia.com", "nodeName": "gpu-1", "devices": devices}},
            {"spec": {"driver": "gpu.nvidia.com", "allNodes": True, "devices": devices}},
            {"spec": {"driver": "gpu.nvidia.com", "nodeName": "gpu-1", "devices": "broken"}},
        ]
    )
    assert memory.observe(_node(_GFD, gpus=0, clock=clock))
    assert _only(memory).dra == "ResourceSlices of gpu.nvidia.com list 2 of its devices"
