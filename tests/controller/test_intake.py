"""Who is woken by what was seen."""

import itertools
from typing import Any

import pytest
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.watch.intake import JOB_NAME, Intake
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.objects.labels import ENGINE, ENGINE_KEY
from enginesmith_operator.planning.label_mapping import load_label_mapping

_CATALOG = Address("ConfigMap", "operators", "toolchains")
_OCR = Address("InferenceEngine", "vision", "ocr")
_OTHER = Address("InferenceEngine", "speech", "asr")
_BUILD = Address("EngineBuild", "vision", "ocr-l4-01")


class _Woken:
    def __init__(self) -> None:
        self.keys: list[tuple[Address, bool]] = []
        self._versions = itertools.count(1)
        self.cache = ObjectCache(indexed_labels=(ENGINE, ENGINE_KEY, JOB_NAME))
        nodes = NodeMemory(load_label_mapping(), grace_seconds=120.0, clock=lambda: 1_800_000_000.0)
        self.intake = Intake(self.cache, nodes, _CATALOG, lambda key, hurry: self.keys.append((key, hurry)))

    def see(self, address: Address, *owners: Address, deleted: bool = False, **metadata: Any) -> list[Address]:
        """Show an object, and return who was woken in a hurry."""
        references = [
            {"kind": one.kind, "name": one.name, "uid": f"uid-{one.name}", "controller": True} for one in owners
        ]
        document = {
            "kind": address.kind,
            "metadata": {
                "name": address.name,
                "namespace": address.namespace,
                "uid": f"uid-{address.name}",
                "resourceVersion": str(next(self._versions)),
                "ownerReferences": references,
                **metadata,
            },
        }
        return self.take(document, deleted=deleted)

    def take(self, document: Json, *, deleted: bool = False) -> list[Address]:
        self.keys.clear()
        self.intake.take(document, deleted)
        return [key for key, hurry in self.keys if hurry]

    @property
    def unhurried(self) -> list[Address]:
        return sorted(key for key, hurry in self.keys if not hurry)


@pytest.fixture
def woken() -> _Woken:
    found = _Woken()
    found.see(_OCR)
    found.see(_OTHER)
    return found


def test_an_object_of_ours_wakes_itself_and_its_owner_when_it_comes_changes_or_goes(woken: _Woken) -> None:
    assert woken.see(_OCR) == [_OCR]
    assert woken.see(_BUILD, _OCR) == [_BUILD, _OCR]
    assert woken.see(_BUILD, _OCR, deleted=True) == [_BUILD, _OCR]


@pytest.mark.parametrize("kind", ["Deployment", "Service", "Job", "PodDisruptionBudget"])
def test_a_child_wakes_its_owner(woken: _Woken, kind: str) -> None:
    assert woken.see(Address(kind, "vision", "child"), _OCR) == [_OCR]


def test_what_is_known_already_wakes_nobody(woken: _Woken) -> None:
    document: Json = {
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "vision", "uid": "u", "resourceVersion": "9"},
    }
    document["metadata"]["ownerReferences"] = [{"kind": "InferenceEngine", "name": "ocr", "uid": "uid-ocr"}]
    assert woken.take(document) == [_OCR]
    assert woken.take(document) == []


def test_a_build_s_pod_wakes_the_build_through_its_job(woken: _Woken) -> None:
    woken.see(Address("Job", "vision", "ocr-l4-01"), _BUILD)
    labels = {JOB_NAME: "ocr-l4-01", ENGINE: "ocr"}
    assert _BUILD in woken.see(Address("Pod", "vision", "p"), labels=labels)


def test_a_server_s_pod_wakes_its_engine(woken: _Woken) -> None:
    assert woken.see(Address("Pod", "vision", "p"), labels={ENGINE: "ocr"}) == [_OCR]


def test_the_catalog_wakes_everybody_in_no_hurry_and_another_config_map_nobody(woken: _Woken) -> None:
    assert woken.see(_CATALOG) == []
    assert woken.unhurried == [_OTHER, _OCR]
    woken.see(Address("ConfigMap", "vision", "toolchains"))
    assert woken.unhurried == []


def test_a_claim_wakes_the_engines_of_its_namespace(woken: _Woken) -> None:
    woken.see(Address("PersistentVolumeClaim", "vision", "engines"))
    assert woken.unhurried == [_OCR]


def test_a_policy_wakes_everybody_and_a_namespace_its_engines(woken: _Woken) -> None:
    woken.see(Address("EnginePolicy", "", "house"))
    assert woken.unhurried == [_OTHER, _OCR]
    woken.see(Address("Namespace", "", "vision"))
    assert woken.unhurried == [_OCR]


def test_a_node_wakes_everybody_when_plans_see_another_one_and_nobody_at_a_heartbeat(woken: _Woken) -> None:
    woken.take(gpu_node("gpu-1"))
    assert woken.unhurried == [_OTHER, _OCR]
    woken.take(gpu_node("gpu-1"))
    assert woken.unhurried == []
    woken.take(gpu_node("gpu-1"), deleted=True)
    assert woken.unhurried == [_OTHER, _OCR]
