"""Whose turn it is where an EnginePolicy limits the builds of a namespace."""

from itertools import count

import pytest
from tests.controller.build_snapshots import NOW, make_build, ready_condition

from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.controller.engine_build.decide import decide_build
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.engine_build.turns import BuildTurns
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.gpu_use import GpuUse
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.planning.rollout_state import Obstacle


class Builds:
    """EngineBuilds, Jobs and policies that were seen."""

    def __init__(self) -> None:
        self._versions = count(1)
        self.cache = ObjectCache(indexed_labels=())
        policies = PolicyReader(self.cache)
        self.gpus = GpuUse(self.cache, policies)
        self._turns = BuildTurns(self.cache, policies, self.gpus)

    def limit(self, builds: int, *, namespace: str = "vision", of: str = "concurrentBuilds") -> None:
        """Show a policy."""
        spec = {"namespaceSelector": {"names": [namespace]}, "limits": {of: builds}}
        self._put("EnginePolicy", f"limit-{builds}", spec=spec)

    def build(
        self, name: str, *, second: int = 0, phase: str = "Pending", namespace: str = "vision", gpu: str = ""
    ) -> None:
        """Show an EngineBuild that was created in this second."""
        made = f"2026-11-29T12:00:{second:02}Z"
        spec = {"placement": {"gpuResource": gpu} if gpu else {}}
        self._put("EngineBuild", name, namespace, made, status={"phase": phase}, spec=spec)

    def serve(self, name: str, replicas: int) -> None:
        """Let an InferenceEngine take GPUs."""
        self._put("InferenceEngine", name, "vision")
        self.gpus.promise(Address("InferenceEngine", "vision", name), replicas)

    def job(self, name: str) -> None:
        """Show the Job of a build."""
        self._put("Job", name, "vision", owner=f"uid-EngineBuild-{name}")

    def may_begin(self, name: str) -> bool:
        """Whether a build is not held back."""
        return self._turns.held_back("vision", name) is None

    def held_back(self, name: str) -> str:
        """Return why a build may not begin."""
        found = self._turns.held_back("vision", name)
        assert found is not None
        return found.message

    def _put(self, kind: str, name: str, namespace: str = "", made: str = "", owner: str = "", **parts: object) -> None:
        owners = [{"kind": "EngineBuild", "name": name, "uid": owner, "controller": True}] if owner else []
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{kind}-{name}",
            "resourceVersion": str(next(self._versions)),
            "creationTimestamp": made,
            "ownerReferences": owners,
        }
        self.cache.put({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {}, **parts})


@pytest.fixture
def builds() -> Builds:
    """Three builds of one namespace, the youngest first, and one of another one."""
    found = Builds()
    for second, name in enumerate(("c", "b", "a")):
        found.build(name, second=9 - second)
    found.build("other", namespace="speech")
    return found


def test_without_a_limit_every_build_may_begin(builds: Builds) -> None:
    builds.limit(1, namespace="speech")

    assert all(map(builds.may_begin, ("a", "b", "c")))


def test_the_oldest_builds_begin_first_and_the_strictest_limit_holds(builds: Builds) -> None:
    builds.limit(2)
    assert list(map(builds.may_begin, ("a", "b", "c"))) == [True, True, False]

    builds.limit(1)
    assert list(map(builds.may_begin, ("a", "b", "c"))) == [True, False, False]


def test_a_build_begins_when_another_one_ends(builds: Builds) -> None:
    builds.limit(1)
    builds.job("c")
    assert list(map(builds.may_begin, ("a", "b"))) == [False, False]
    assert builds.held_back("a") == "EnginePolicy limit-1 allows 1 build at a time in namespace vision (running: 1)"

    builds.build("c", second=9, phase="Succeeded")

    assert list(map(builds.may_begin, ("a", "b"))) == [True, False]


def test_builds_wait_for_the_gpus_that_a_policy_leaves_the_oldest_first() -> None:
    builds = Builds()
    builds.limit(3, of="gpus")
    builds.serve("ocr", 1)
    for second, name in enumerate(("a", "b", "c")):
        builds.build(name, second=second, gpu="nvidia.com/gpu")
    builds.build("cpu", second=9)

    assert list(map(builds.may_begin, ("c", "b", "a", "cpu"))) == [False, True, True, True]
    assert builds.held_back("c") == (
        "EnginePolicy limit-3 allows 3 GPUs in namespace vision (in use: InferenceEngine ocr 1, builds 2)"
    )

    builds.build("a", phase="Succeeded", gpu="nvidia.com/gpu")

    assert builds.may_begin("c")


def test_a_build_that_is_held_back_gets_no_job_says_why_and_looks_again() -> None:
    held = Obstacle(reason="PolicyQueue", message="1 of 1 builds runs")
    decision = decide_build(BuildSnapshot(build=make_build(), job=None, held_back=held, now=NOW))

    assert not decision.create_job
    assert decision.status.phase is BuildPhase.PENDING
    assert (ready_condition(decision).reason, ready_condition(decision).message) == (
        "PolicyQueue",
        "1 of 1 builds runs",
    )
    assert decision.requeue_seconds is not None
