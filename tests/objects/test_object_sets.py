"""All objects of an engine, as golden files; UPDATE_GOLDEN=1 writes them anew."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.objects.conftest import object_set

from enginesmith_operator.api.inference_engine import InferenceEngine

MakeEngine = Callable[..., InferenceEngine]

FOLDER = Path(__file__).parent
SPECS: dict[str, dict[str, Any]] = {
    # One target that finds two products, one of them on a shared node as well, a standby on the CPU; S3 with a Secret.
    "two-products": {
        "model": {"uri": "s3://models/resnet50.onnx", "secretRef": {"name": "models-read"}},
        "targets": [
            {"name": "ada", "gpu": {"computeCapability": "8.9"}, "replicas": 2},
            {"name": "cpu", "backend": "onnxruntime", "standby": True},
        ],
        "store": {
            "s3": {
                "bucket": "engines",
                "prefix": "prod/",
                "endpoint": "https://s3.example",
                "region": "eu-west-1",
                "secretRef": {"name": "engines-write"},
            }
        },
    },
    # ONNX Runtime on a GPU's node, the operator's claim as the store, an autoscaler, a model in a claim.
    "autoscaled": {
        "model": {"uri": "pvc://models/vision/resnet50.onnx"},
        "targets": [
            {
                "name": "l40s",
                "backend": "onnxruntime",
                "gpu": {"product": "NVIDIA-L40S"},
                "autoscaling": {"minReplicas": 2, "maxReplicas": 8, "cpuUtilization": 70},
            }
        ],
    },
    # TensorRT for RTX in a registry, everything that a pod template and a build can have.
    "everything-set": {
        "precision": {"default": "int8", "calibration": "pvc://calibration/set.npz"},
        "targets": [
            {
                "name": "rtx",
                "backend": "tensorrt-rtx",
                "gpu": {"product": "NVIDIA-L40S", "count": 1},
                "backendOptions": {"cudaGraphs": "4", "pinnedMemoryLimit": "2Gi"},
            }
        ],
        "build": {
            "timeout": "10m",
            "queueName": "builds",
            "priorityClassName": "low",
            "resources": {"requests": {"cpu": 2}, "limits": {"memory": "16Gi"}},
        },
        "serving": {
            "batching": {"maxQueueDelay": "2ms", "preferredBatchSizes": [4, 8], "maxBatchSize": 16},
            "queue": {"timeout": "500ms", "priorityLevels": 3, "defaultPriorityLevel": 2},
            "responseCache": {"size": "64Mi"},
            "drainDelay": "2s",
            "frontEnds": 4,
            "gracePeriod": "20s",
            "http": {"enabled": True},
            "instances": 4,
            "maxQueued": 8,
            "maxStreams": 16,
            "tls": {"secretName": "resnet50-tls", "clientCASecretName": "clients-ca"},
            "auth": {"tokensSecretName": "resnet50-tokens"},
            "clientLimits": {"maxInFlight": 8},
        },
        "store": {"oci": {"repository": "registry.example/engines", "plainHttp": True, "secretRef": {"name": "push"}}},
        "podTemplate": {
            "tolerations": [{"key": "dedicated", "value": "inference", "effect": "NoSchedule"}],
            "runtimeClassName": "nvidia",
            "imagePullSecrets": [{"name": "pull"}],
            "serviceAccountName": "inference",
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "resources": {"limits": {"cpu": "4", "memory": "8Gi"}},
            "priorityClassName": "high",
        },
    },
    # A pool that has no node now, and a name that leaves no room.
    "scaled-to-zero": {"targets": [{"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}]},
}


@pytest.mark.parametrize("name", SPECS)
def test_an_engine_s_objects_are_its_golden_ones(make_engine: MakeEngine, name: str) -> None:
    engine = make_engine(f"{'very-' * 11}long" if name == "scaled-to-zero" else "resnet50", **SPECS[name])

    # By way of JSON: no aliases.
    text = yaml.safe_dump_all(json.loads(json.dumps(object_set(engine))), sort_keys=False, width=120)

    golden = FOLDER / "golden" / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
