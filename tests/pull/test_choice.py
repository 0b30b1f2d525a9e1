"""Which engine a pod takes on which GPU, and what it says where none is for it."""

import pytest

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.pull_request import PullableEngine, PullRequest
from enginesmith_contract.serve_request import ModelOptions
from enginesmith_runtime.pull.choice import Place, choose_engine, needs_device

A100 = "NVIDIA-A100-SXM4-40GB"
L4 = "NVIDIA-L4"
HOST = Hardware(arch="amd64")


def gpu(product: str, mig_profile: str | None = None, arch: str = "amd64") -> Hardware:
    return Hardware(product=product, mig_profile=mig_profile, arch=arch)


def asked(backend: Backend, *engines: PullableEngine) -> PullRequest:
    return PullRequest(
        store="/store", backend=backend, engines=engines, model=ModelOptions(name="resnet", target="any")
    )


def engine(key: str, product: str | None, mig_profile: str | None = None, arch: str = "amd64") -> PullableEngine:
    return PullableEngine(engine_key=key, product=product, mig_profile=mig_profile, arch=arch)


TRT, ORT = Backend.TENSORRT, Backend.ONNXRUNTIME
FLEET = (engine("a100", A100), engine("slice", A100, "1g.10gb"), engine("me", A100, "1g.10gb.me"), engine("l4", L4))


@pytest.mark.parametrize(
    ("backend", "engines", "place", "want_key"),
    [
        (TRT, FLEET, Place(devices=[gpu(L4)], host=HOST), "l4"),
        (TRT, FLEET, Place(devices=[gpu(A100)], host=HOST), "a100"),
        (TRT, FLEET, Place(devices=[gpu(A100, "1g.10gb")], host=HOST), "slice"),
        (TRT, FLEET, Place(devices=[gpu(A100, "1g.10gb+me")], host=HOST), "me"),
        (TRT, FLEET, Place(devices=[gpu("A100-SXM4-40GB")], host=HOST), "a100"),
        (TRT, FLEET, Place(devices=[gpu(L4), gpu(A100)], host=HOST), "l4"),
        (TRT, FLEET, Place(devices=[gpu(L4)], host=HOST, node_product=A100), "l4"),
        (ORT, FLEET[3:], Place(devices=[], host=HOST), "l4"),
        (ORT, FLEET, Place(devices=[], host=HOST, node_product=f"{L4}-SHARED"), "l4"),
        (ORT, FLEET, Place(devices=[gpu(A100)], host=HOST, node_product=L4), "a100"),
        (ORT, (engine("amd", None), engine("arm", None, None, "arm64")), Place(devices=[], host=HOST), "amd"),
        (ORT, (engine("amd", None),), Place(devices=[], host=HOST), "amd"),
    ],
    ids=[
        "its GPU",
        "the whole GPU and not its slice",
        "its slice",
        "a slice that the driver spells otherwise",
        "a product that the driver spells otherwise",
        "the first GPU",
        "the GPU's word against the node's",
        "the only engine of onnxruntime without a look",
        "the node's word where onnxruntime sees no GPU",
        "the GPU's word where onnxruntime sees one",
        "the machine's architecture",
        "the only engine of a CPU",
    ],
)
def test_a_pod_takes(backend: Backend, engines: tuple[PullableEngine, ...], place: Place, want_key: str) -> None:
    assert choose_engine(asked(backend, *engines), place).engine_key == want_key


@pytest.mark.parametrize(
    ("backend", "engines", "place", "want_reason", "want_text"),
    [
        (TRT, FLEET, Place(devices=[], host=HOST), "NoGpu", A100),
        (
            TRT,
            FLEET,
            Place(devices=[], host=HOST, problem="libcuda.so.1 is missing"),
            "NoGpu",
            "libcuda.so.1 is missing",
        ),
        (TRT, FLEET[3:], Place(devices=[], host=HOST, node_product=L4), "NoGpu", L4),
        (
            TRT,
            FLEET[3:],
            Place(devices=[gpu("Tesla-T4")], host=HOST, node_product=L4),
            "NodeMislabelled",
            f"the node's label is {L4}, and the GPU is Tesla-T4",
        ),
        (TRT, FLEET, Place(devices=[gpu("Tesla-T4")], host=HOST), "NoEngineForGpu", "the GPU is Tesla-T4"),
        (TRT, FLEET[3:], Place(devices=[gpu(L4, "1g.10gb")], host=HOST), "NoEngineForGpu", "1g.10gb"),
        (TRT, FLEET, Place(devices=[gpu(L4, arch="arm64")], host=HOST), "NoEngineForGpu", "on arm64"),
        (
            ORT,
            (engine("arm", None, None, "arm64"), engine("power", None, None, "ppc64le")),
            Place(devices=[], host=HOST),
            "NoEngineForArch",
            "the machine is amd64",
        ),
    ],
    ids=[
        "no GPU for several engines",
        "no driver's library",
        "no GPU for one engine, whatever the node says",
        "a node that lies",
        "a GPU that nobody built for",
        "a slice where the whole GPU was built for",
        "another architecture",
        "a CPU that nobody built for",
    ],
)
def test_a_pod_refuses(
    backend: Backend, engines: tuple[PullableEngine, ...], place: Place, want_reason: str, want_text: str
) -> None:
    with pytest.raises(EngineRefusedError) as caught:
        choose_engine(asked(backend, *engines), place)
    assert caught.value.reason == want_reason
    assert want_text in str(caught.value)
    assert caught.value.remedy


def test_only_a_choice_between_gpus_needs_a_look_at_them() -> None:
    assert not needs_device(asked(ORT, *FLEET[:1]))
    assert not needs_device(asked(ORT, engine("amd", None), engine("arm", None, None, "arm64")))
    assert needs_device(asked(ORT, *FLEET))
    assert needs_device(asked(TRT, *FLEET[:1]))
