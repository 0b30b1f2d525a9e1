"""An INT8 engine on a real cluster: calibrated by data in a bucket; broken calibrations are stopped, and it serves."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant, model_at, new_tenant
from tests.cluster.inference import service_address
from tests.cluster.traffic import steady_traffic
from tests.prepare.oriented_classifier import WRONG_TENSOR, samples, write_classifier

from enginesmith_contract.store_layout import HistogramsPointer
from enginesmith_runtime.prepare.quantize.histograms import Histogram, read_histograms, write_histograms
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.settings import StoreSettings

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "stripes"
CPU = {"name": "cpu", "backend": "onnxruntime"}
PROFILES = ({"inputs": {"image": {"min": [1, 1, 20, 20], "opt": [2, 1, 20, 20], "max": [4, 1, 20, 20]}}},)
IMAGE = ("image", (1, 1, 20, 20))

Histograms = Mapping[str, Histogram]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A namespace for engines of a classifier, with calibration data in a bucket and a store of its own.

    Attributes:
        folder: of the model and its data in the S3 server.
        path: a local folder.
    """

    tenant: Tenant
    folder: str
    path: Path

    def put_data(self, name: str, batch: np.ndarray) -> str:
        """Upload a batch of samples; returns the folder in which it is."""
        np.savez(self.path / f"{name}.npz", image=batch)
        self.tenant.cluster.upload(self.path / f"{name}.npz", f"{self.folder}/{name}/stripes.npz")
        return f"{self.folder}/{name}/"

    def apply(self, calibration: Document, verification: Document | None = None, **precision: object) -> None:
        """Apply the InferenceEngine in INT8; `precision` adds to `spec.precision`."""
        s3 = self.tenant.cluster.s3
        # Another folder of the operator's own bucket would be refused.
        store = {"bucket": "teams", "prefix": "team/", "endpoint": s3["AWS_ENDPOINT_URL"], "region": s3["AWS_REGION"]}
        self.tenant.apply(
            NAME,
            [CPU],
            precision={"default": "int8", "calibration": calibration, **precision},
            verification=verification or {},
            store={"s3": {**store, "secretRef": {"name": "s3"}}},
        )

    def change_histograms(self, change: Callable[[Histograms], Histograms]) -> None:
        """Put other histograms in place of the stored ones, as a fault of the calibration or of the store would."""
        settings = StoreSettings(variables=self.tenant.cluster.s3)
        store = open_store(f"s3://teams/team/{self.tenant.namespace}", settings)
        (name,) = store.list_pointers("histograms/")
        pointer = HistogramsPointer.from_json(store.read_pointer(name) or b"")
        good = self.path / "good.bin"
        if not good.exists():
            good.write_bytes(store.get_files([pointer.file], self.path / "found", private=True).read_bytes())
        changed = self.path / "changed.bin"
        changed.write_bytes(write_histograms(change(read_histograms(good.read_bytes()))))
        (file,) = store.put_files(self.path, [changed])
        store.replace_pointer(name, HistogramsPointer(file=file).to_json())

    def until_refused(self, kind: str, *words: str) -> None:
        """Wait until a condition says why what was applied last does not serve, and see that the engine before does."""
        generation = self.tenant.get("inferenceengine", NAME)["metadata"]["generation"]

        def refused() -> bool:
            told = self.tenant.condition(NAME, kind)
            message = told.get("message", "")
            return told.get("observedGeneration") == generation and all(map(message.__contains__, words))

        self.tenant.until(refused, f"{kind} says {', '.join(words)}")
        target = self.tenant.target(NAME, "cpu")
        assert (target["phase"], target["readyReplicas"]) == ("Serving", 1)
        assert self.tenant.condition(NAME, "Ready")["status"] == "True"


@pytest.fixture
def workshop(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop with the model."""
    folder = f"s3://models/{namespace}"
    cluster.files().makedirs("teams", exist_ok=True)
    cluster.upload(write_classifier(tmp_path / "stripes.onnx"), f"{folder}/stripes.onnx")
    with new_tenant(cluster, namespace, model_at(cluster, f"{folder}/stripes.onnx")) as made:
        yield Workshop(tenant=replace(made, profiles=PROFILES), folder=folder, path=tmp_path)


def scaled(one: Histogram, factor: float) -> Histogram:
    """Return the histogram of values that are all `factor` times as large."""
    return replace(
        one,
        limit=factor * one.limit,
        lowest=factor * one.lowest,
        highest=factor * one.highest,
        largest=np.float32(factor) * one.largest,
    )


def shuffled(histograms: Histograms) -> Histograms:
    """Give each tensor the values of the one before."""
    names = list(histograms)
    return {name: histograms[other] for name, other in zip(names, names[-1:] + names[:-1], strict=True)}


def test_broken_calibrations_are_stopped_with_their_tensor_while_the_engine_before_serves(workshop: Workshop) -> None:
    tenant = workshop.tenant
    batch = np.concatenate([inputs["image"] for _, inputs in samples(2000, 40)])
    data = workshop.put_data("data", batch)
    workshop.apply({"source": data})
    tenant.until_ready(NAME)
    serving = tenant.target(NAME, "cpu")["serving"]
    (build,) = tenant.get("enginebuilds")["items"]
    assert "held-out samples" in build["status"]["result"]["judgedOn"]

    with steady_traffic(service_address(tenant, NAME), NAME, workshop.path / "answers", IMAGE) as traffic:
        workshop.change_histograms(shuffled)
        workshop.apply({"source": data, "method": "minMax"})
        workshop.until_refused("Built", "output 'probabilities'", "tensor 'features_a'")

        workshop.change_histograms(lambda all_: {**all_, WRONG_TENSOR: scaled(all_[WRONG_TENSOR], 1 / 100)})
        workshop.apply({"source": data, "method": "percentile", "percentile": 99.99})
        workshop.until_refused("Built", "output 'probabilities'", f"tensor '{WRONG_TENSOR}'")

        # Most samples are pixels from 0 to 255, and others were normalised: ranges are 100 times too wide for them.
        mixed = np.where(np.arange(len(batch))[:, None, None, None] % 5 < 3, 100 * batch, batch)
        workshop.apply({"source": workshop.put_data("mixed", mixed)})
        workshop.until_refused("Built", "output 'probabilities'", "tensor 'image'")

        workshop.apply({"source": workshop.put_data("zeros", np.zeros_like(batch))})
        workshop.until_refused("Prepared", "image: 0 in all 32 samples")

        workshop.apply({"source": data})
        tenant.until_ready(NAME)

    assert tenant.target(NAME, "cpu")["serving"] == serving
    assert (traffic.lost(), len(traffic.engines())) == ([], 1)


def test_another_precision_serves_where_the_gate_stops_the_engine_in_int8(workshop: Workshop) -> None:
    tenant = workshop.tenant
    data = workshop.put_data("data", np.concatenate([inputs["image"] for _, inputs in samples(2000, 40)]))
    workshop.apply({"source": data, "method": "percentile", "percentile": 51}, fallback=["fp16"])
    tenant.until_ready(NAME)

    told = tenant.condition(NAME, "PrecisionFallback")["message"]
    assert told.startswith("fp16 is used in place of int8, which failed its gate (")
    assert "output 'probabilities'" in told
    builds = {one["metadata"]["name"]: one["status"]["phase"] for one in tenant.get("enginebuilds")["items"]}
    assert sorted(builds.values()) == ["Failed", "Succeeded"]
    (refused,) = tenant.get("inferenceengine", NAME)["status"]["refusedPrecisions"]
    assert (refused["precision"], builds[refused["build"]]) == ("int8", "Failed")
    assert "PrecisionFallback" in {one["reason"] for one in tenant.events()}


METRIC = """
import json, os, numpy as np
from pathlib import Path
data = Path("/metric/data")
index = json.loads((data / "index.json").read_text())
pairs = [[np.load(data / one[kind])["probabilities"] for kind in ("reference", "engine")] for one in index["samples"]]
same = sum(bool((a.argmax(1) == b.argmax(1)).all()) for a, b in pairs) / len(pairs)
seen = [name for name in os.environ if name.startswith(("AWS", "ENGINESMITH"))]
token = Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
account = any(Path(one).exists() for one in ("/etc/enginesmith", "/metric/candidate"))
assert os.getuid() and not (seen or token or account), (seen, token, account)
Path("/metric/result/result.json").write_text(json.dumps({"value": same, "message": "stripes of one direction"}))
"""


def test_a_metric_in_a_container_decides_while_the_engine_before_serves(
    workshop: Workshop, images: dict[str, str]
) -> None:
    tenant = workshop.tenant
    batch = np.concatenate([inputs["image"] for _, inputs in samples(2000, 40)])
    data = workshop.put_data("data", batch)
    command = ["/opt/enginesmith/bin/python", "-c"]
    container = {"image": images["enginesmith/runtime"], "command": [*command, METRIC], "atLeast": 0.9}
    workshop.apply({"source": data}, {"metricContainer": container})
    tenant.until_ready(NAME)
    serving = tenant.target(NAME, "cpu")["serving"]
    (build,) = tenant.get("enginebuilds")["items"]
    assert build["status"]["result"]["metric"] >= 0.9
    assert "metric " in next(one["message"] for one in tenant.events() if one["reason"] == "BuildSucceeded")

    workshop.apply({"source": data, "method": "minMax"}, {"metricContainer": container | {"atLeast": 1.5}})
    workshop.until_refused("Built", "refuses the engine", "at least 1.5 passes", "stripes of one direction")

    broken = container | {"command": [*command, "raise SystemExit('no such language')"]}
    workshop.apply({"source": data, "method": "percentile"}, {"metricContainer": broken})
    workshop.until_refused("Built", "the user's metric ended with exit code 1", "no such language")
    assert tenant.target(NAME, "cpu")["serving"] == serving
