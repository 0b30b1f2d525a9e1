"""Images of toolchains on a real cluster: TensorRT's own without a driver, and images that are not what they should be.

Each build ends once, with one sentence that says what to correct. The image with TensorRT 10.6 is built for it. Its
download of 1 GB and all layers but that of the sources are kept outside the checkout.
"""

import base64
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import ROOT, change_catalog, load_images
from tests.cluster.operator_calls import OperatorCalls
from tests.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator")]

NAME = "small"
ROW = "tensorrt-10.6-cu12"
NODE = "gpu-l4"
TENSORRT = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
# bcrypt of a password that no request sends.
ACCOUNT = "user:$2b$05$abcdefghijklmnopqrstuuQQyMVEm2dNcmXUUFfyBSuCEfFqy3bLC"

SetCatalog = Callable[[Document], None]


@pytest.fixture(scope="session")
def images_with_tensorrt(cluster: Cluster, images: dict[str, str]) -> dict[str, str]:
    """The product's images, and the runtime's with TensorRT 10.6."""
    assert images
    return load_images(cluster, ROW)


@pytest.fixture
def entry(cluster: Cluster, small_tenant: Tenant) -> Iterator[SetCatalog]:
    """Writes an entry of the test's own into the catalog; it is gone after the test and its engines."""
    key = f"test-{uuid.uuid4().hex[:8]}"
    yield lambda document: change_catalog(cluster, key, {"backend": "tensorrt"} | document)
    small_tenant.kubectl("delete", "inferenceengines", "--all", "--cascade=foreground", "--timeout=300s")
    change_catalog(cluster, key, None)


def ended(tenant: Tenant, reason: str) -> Document:
    """Return the only EngineBuild once InferenceEngine and build have failed for this reason."""

    def failed() -> bool:
        builds = tenant.get("enginebuilds")["items"]
        return [(one.get("status") or {}).get("failure", {}).get("reason") for one in builds] == [reason]

    tenant.until(failed, f"the build fails for {reason}", seconds=900)
    tenant.until(lambda: tenant.condition(NAME, "Built").get("reason") == reason, f"Built says {reason}")
    (build,) = tenant.get("enginebuilds")["items"]
    assert build["status"]["phase"] == "Failed"
    return dict(build)


def check_said_once(cluster: Cluster, tenant: Tenant, reason: str, *expected: str) -> None:
    """Hold a failed build against what a user wants of it: one sentence in one line, one pod, one event, then quiet."""
    build = ended(tenant, reason)
    message = build["status"]["failure"]["message"]
    assert "\n" not in message
    for part in expected:
        assert part in message
        assert part in tenant.condition(NAME, "Ready")["message"]
    OperatorCalls(cluster=cluster, namespace=tenant.namespace).until_quiet(quiet_seconds=12)
    assert build["status"]["attempts"] == 1
    assert len(tenant.get("pods", "-l=app.kubernetes.io/component=build")["items"]) <= 1
    assert len([one for one in tenant.events() if one["type"] == "Warning" and one["reason"] == reason]) == 1


@pytest.mark.extended
def test_tensorrt_is_refused_once_for_lack_of_a_driver(
    cluster: Cluster, small_tenant: Tenant, images_with_tensorrt: dict[str, str], entry: SetCatalog
) -> None:
    entry({"version": "10.6.0", "cuda": "12.6", "image": images_with_tensorrt[f"enginesmith/runtime-{ROW}"]})
    small_tenant.apply(NAME, [TENSORRT], toolchain={"tensorrt": "==10.6.*"})

    check_said_once(
        cluster, small_tenant, "NoDevice", "no GPU was found", "libcuda.so.1 of the NVIDIA driver is missing",
        "nvidia-smi", "device plugin",
    )  # fmt: skip
    assert ended(small_tenant, "NoDevice")["status"]["node"] == NODE


@pytest.mark.extended
def test_an_image_without_tensorrt_is_named_with_what_it_has(
    cluster: Cluster, small_tenant: Tenant, images: dict[str, str], entry: SetCatalog
) -> None:
    image = images["enginesmith/runtime"]
    entry({"version": "10.7.0.23", "cuda": "12.6", "image": image})
    small_tenant.apply(NAME, [TENSORRT], toolchain={"tensorrt": "==10.7.*"})

    check_said_once(
        cluster,
        small_tenant,
        "ToolchainMissing",
        "TensorRT is not installed",
        image,
        "ONNX Runtime",
        "toolchain catalog",
    )


@pytest.mark.extended
@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ({"version": "10.13.3.9", "cuda": "12.9"}, "TensorRT 10.6.0 is installed, 10.13.3.9 was asked for"),
        ({"version": "10.6.0", "cuda": "11.8"}, "is installed for CUDA 12, CUDA 11.8 was asked for"),
    ],
    ids=["version", "cuda"],
)
def test_an_image_that_is_not_what_the_catalog_says_is_named_with_both(
    cluster: Cluster, small_tenant: Tenant, images_with_tensorrt: dict[str, str], entry: SetCatalog,
    claim: Document, found: str,
) -> None:  # fmt: skip
    image = images_with_tensorrt[f"enginesmith/runtime-{ROW}"]
    entry(claim | {"image": image})
    small_tenant.apply(NAME, [TENSORRT], toolchain={"tensorrt": f"=={claim['version']}"})

    check_said_once(cluster, small_tenant, "ToolchainDiffers", found, image, "toolchain catalog")


@pytest.fixture
def private_registry(tmp_path: Path) -> Iterator[str]:
    """A registry that wants an account: host and port. Nodes share this machine's network."""
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "accounts").write_text(f"{ACCOUNT}\n")
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "test", "path": str(tmp_path / "accounts")}},
    }
    (tmp_path / "registry.yaml").write_text(json.dumps(settings))
    program = subprocess.check_output([ROOT / "hack/tool", "registry"], text=True).strip()
    with subprocess.Popen([program, "serve", tmp_path / "registry.yaml"], stderr=subprocess.DEVNULL) as server:
        yield address
        server.terminate()


@pytest.mark.extended
def test_a_wrong_pull_secret_is_told_with_the_registry_and_where_to_correct_it(
    cluster: Cluster, small_tenant: Tenant, images: dict[str, str], entry: SetCatalog, private_registry: str
) -> None:
    image = f"{private_registry}/runtime@sha256:{'a' * 64}"
    entry({"version": "10.7.0.23", "cuda": "12.6", "image": image, "preparationImage": images["enginesmith/runtime"]})
    login = base64.b64encode(b"user:wrong").decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull", "namespace": small_tenant.namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": {private_registry: {"auth": login}}})},
    }
    cluster.apply(secret)
    small_tenant.apply(
        NAME, [TENSORRT], toolchain={"tensorrt": "==10.7.*"}, podTemplate={"imagePullSecrets": [{"name": "pull"}]}
    )

    def told() -> bool:
        return small_tenant.condition(NAME, "Built").get("reason") == "ImageCannotBePulled"

    small_tenant.until(told, "Built says that the image cannot be pulled")
    message = small_tenant.condition(NAME, "Built")["message"]
    for expected in (image, "the registry refuses the credentials", "spec.podTemplate.imagePullSecrets"):
        assert expected in message
    assert "\n" not in message
    OperatorCalls(cluster=cluster, namespace=small_tenant.namespace).until_quiet()
