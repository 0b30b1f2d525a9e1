"""What clients get from engines in the cluster: tritonclient in its own environment, and ONNX Runtime's own answer."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from tests.cluster.engines import Tenant

__all__ = ["Arrays", "TritonAnswer", "ask_with_tritonclient", "model_answer", "service_address"]

Arrays = Mapping[str, np.ndarray]

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(__file__).with_name("tritonclient_requests.py")
_PORT = 8001


@dataclass(frozen=True, kw_only=True)
class TritonAnswer:
    """What tritonclient got for one request.

    Attributes:
        headers: of the answer.
        outputs: by name.
        refusal: status and sentence; empty where it was answered.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    outputs: Arrays = field(default_factory=dict)
    refusal: str = ""


def service_address(tenant: Tenant, service: str) -> str:
    """Return host and port of a Service of the namespace, as its clients reach it."""
    return f"{tenant.get('service', service)['spec']['clusterIP']}:{_PORT}"


def ask_with_tritonclient(model: str, tensors: Arrays, addresses: Iterable[str]) -> tuple[TritonAnswer, ...]:
    """Send the same request to each address, on a connection of its own, in a process of the client's own."""
    venv = subprocess.run([_ROOT / "hack" / "venv", "tritonclient"], check=True, capture_output=True, text=True)
    python = Path(venv.stdout.strip()) / "bin" / "python"
    with TemporaryDirectory(prefix="enginesmith-tensors-") as folder:
        file = Path(folder) / "tensors.npz"
        np.savez(file, allow_pickle=False, **tensors)
        wanted = json.dumps({"model": model, "tensors": str(file), "addresses": list(addresses)})
        run = subprocess.run([python, _PROGRAM, wanted], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return tuple(_answer(one) for one in json.loads(run.stdout))


def model_answer(model: Path, tensors: Arrays) -> Arrays:
    """Return what ONNX Runtime answers in this process."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(tensors)), strict=True))


def _answer(seen: dict[str, Any]) -> TritonAnswer:
    outputs = {name: np.asarray(values, np.float32) for name, values in seen.get("outputs", {}).items()}
    return TritonAnswer(headers=seen.get("headers", {}), outputs=outputs, refusal=seen.get("refusal", ""))
