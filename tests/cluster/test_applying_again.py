"""An unchanged file changes nothing, however it is applied; what is out of bounds is refused where it is applied.

The kinds stand in a group of the test's own, where no operator writes.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_schema.crd import crd
from api_schema.kinds import DEFINITIONS
from tests.cluster.access import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/installation.md")
FILES = (
    "docs/reference/every-field.yaml",
    "examples/cluster/engine.yaml",
    "examples/ocr/engine.yaml",
    "tests/api/design_example.yaml",
)
SHAPE = {"min": [1], "opt": [1], "max": [1]}
SPELLED = {
    "requests": {"cpu": "0.1", "memory": "0.25Gi", "ephemeral-storage": "1e9"},
    "limits": {"memory": "1024Mi", "cpu": 2},
}
SPARE = {
    # Everything that may be left out of an entry of a list is left out.
    "profiles": [{"inputs": {"x": SHAPE}}],
    "targets": [{"name": "a", "autoscaling": {"maxReplicas": 2}}, {"name": "b", "gpu": {"minMemory": "1024Mi"}}],
    "podTemplate": {
        "tolerations": [{"key": "a", "value": ""}, {"operator": "Exists", "effect": "NoSchedule"}],
        "env": [
            {"name": "A", "value": ""},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": SPELLED,
    },
    "build": {"resources": SPELLED, "workspace": "1024Mi", "timeout": "90m", "plugins": []},
    "model": {"uri": "s3://models/a.onnx", "refresh": "3600s"},
    "verification": {"limit": 0.010, "inputs": {"x": {"range": [0, 1.0]}}},
}


def _engine(**spec: object) -> dict[str, Any]:
    plain = {"model": {"uri": "s3://models/a.onnx"}}
    return {"kind": "InferenceEngine", "metadata": {"name": "engine"}, "spec": plain | spec}


def _documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the engines of files and pages, but those of local mode, and one that leaves out what may be left out."""
    texts = {name: [(ROOT / name).read_text(encoding="utf-8")] for name in FILES}
    for name in PAGES:
        texts[name] = re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    for name, blocks in texts.items():
        for document in (one for block in blocks for one in yaml.safe_load_all(block)):
            if not isinstance(document, dict) or document.get("kind") != "InferenceEngine":
                continue
            spec = document["spec"]
            if "://" in spec["model"]["uri"] and "path" not in spec.get("store", {}):
                yield f"{name}:{document['metadata']['name']}", document
    yield "spare", _engine(**SPARE)


@pytest.fixture(scope="module")
def group(cluster: Cluster) -> Iterator[str]:
    """A group with the kinds."""
    group = f"test-{uuid.uuid4().hex[:8]}.example"
    names = []
    for kind in DEFINITIONS:
        definition = crd(kind)
        names.append(f"{kind.resource.plural}.{group}")
        definition["metadata"]["name"] = names[-1]
        definition["spec"] |= {"group": group}
        del definition["spec"]["names"]["shortNames"], definition["spec"]["names"]["categories"]
        cluster.apply(definition)
    cluster.until_defined(*names)
    yield group
    cluster.kubectl("delete", "crd", *names, "--wait=false")


def test_an_unchanged_file_is_unchanged_to_every_way_of_applying_it(
    cluster: Cluster, namespace: str, group: str
) -> None:
    names = []
    for number, (name, document) in enumerate(_documents()):
        metadata = {"name": f"engine-{number}", "namespace": namespace}
        text = yaml.safe_dump(document | {"apiVersion": f"{group}/v1alpha1", "metadata": metadata})
        address = (f"inferenceengines.{group}", f"engine-{number}", "-n", namespace)

        cluster.kubectl("apply", "-f", "-", stdin=text)
        before = cluster.get(*address)["metadata"]
        assert cluster.kubectl("apply", "-f", "-", stdin=text).strip().endswith(" unchanged"), name
        difference = cluster.run("kubectl", "diff", "-f", "-", stdin=text)
        assert difference.stdout == "", name
        assert cluster.get(*address)["metadata"]["resourceVersion"] == before["resourceVersion"], name

        other = text.replace(f"name: engine-{number}", f"name: server-side-{number}")
        address = (f"inferenceengines.{group}", f"server-side-{number}", "-n", namespace)
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=other)
        before = cluster.get(*address)["metadata"]
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=other)
        after = cluster.get(*address)["metadata"]
        assert (after["resourceVersion"], after["generation"]) == (before["resourceVersion"], 1), name
        names.append(name)

    assert len(names) > len(FILES)


@pytest.mark.parametrize(
    ("spec", "want_words"),
    [
        ({"model": {"uri": "s3://a/b", "refresh": "0s"}}, "expected a duration of at least 1m and at most 8760h"),
        ({"model": {"uri": "s3://a/b", "refresh": "59999999us"}}, "at least 1m"),
        ({"model": {"uri": "s3://a/b", "refresh": "9999999999h"}}, "at most 8760h"),
        ({"build": {"timeout": "0"}}, "expected a duration of at least 1s and at most 168h"),
        ({"build": {"workspace": 0}}, "expected a number of bytes of at least 1Mi and at most 1Ti"),
        ({"build": {"workspace": -1}}, "at least 1Mi"),
        ({"build": {"workspace": "9Ei"}}, "at most 1Ti"),
        ({"serving": {"maxMessageBytes": "2Gi"}}, "at most 2147483647"),
        ({"serving": {"batching": {"enabled": False, "maxBatchSize": 4}}}, "no effect if enabled is false"),
        ({"serving": {"batching": {"preferredBatchSizes": [8], "maxBatchSize": 4}}}, "larger than maxBatchSize"),
        ({"serving": {"queue": {"defaultPriorityLevel": 1}}}, "must be at most priorityLevels"),
        ({"podTemplate": {"resources": {"limits": {"memory": "9Ei"}}}}, "expected a quantity of at least 0"),
        ({"podTemplate": {"resources": {"requests": {"cpu": "1001m"}, "limits": {"cpu": 1}}}}, "larger than the limit"),
        ({"podTemplate": {"tolerations": [{"key": "a", "tolerationSeconds": 1}]}}, "only for the effect NoExecute"),
        ({"podTemplate": {"tolerations": [{"value": "a"}]}}, "needs the operator Exists"),
        ({"targets": [{"name": "a", "gpu": {"minMemory": "0"}}]}, "at least 1Mi"),
        ({"targets": [{"name": "a", "replicas": 10**18}]}, "less than or equal to 10000"),
        (
            {
                "targets": [
                    {"name": "a", "autoscaling": {"maxReplicas": 1, "podMetric": {"name": "a", "averageValue": 0}}}
                ]
            },
            "expected a quantity of at least 1n",
        ),
        ({"profiles": [{"inputs": {"x": SHAPE}}, {"name": "default", "inputs": {"x": SHAPE}}]}, "must be unique"),
    ],
)
def test_what_is_out_of_bounds_is_refused_where_it_is_applied(
    cluster: Cluster, namespace: str, group: str, spec: dict[str, Any], want_words: str
) -> None:
    text = json.dumps(_engine(**spec) | {"apiVersion": f"{group}/v1alpha1"})
    for way in ((), ("--server-side",)):
        done = cluster.run("kubectl", "apply", *way, "--dry-run=server", "-n", namespace, "-f", "-", stdin=text)

        assert done.returncode != 0
        assert want_words in done.stderr
