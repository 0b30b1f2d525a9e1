"""Plugin libraries before a build: allowed, fetched and checked, or an end within a second that says why."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest, PluginLibrary
from enginesmith_contract.environment import CLAIMS_FOLDER
from enginesmith_contract.errors import BuildError, SourceError, SpecError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.plugin_libraries import PluginPlaces, fetch_plugins, is_allowed
from enginesmith_runtime.progress import SilentReporter

PrepareModel = Callable[..., Preparation]
SmallModel = Callable[..., Path]

_LIBRARY = b"the bytes of a library"
_DIGEST = sha256(_LIBRARY).hexdigest()


def _request(*plugins: PluginLibrary, store: str = "", preparation: str = "0" * 64) -> BuildRequest:
    inputs = EngineKeyInputs(
        preparation_key=preparation,
        backend=Backend.TENSORRT,
        backend_version="10.6.0",
        plugins=tuple(one.sha256 for one in plugins),
    )
    return BuildRequest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        store=store,
        toolchain=Toolchain(name="tensorrt", backend=Backend.TENSORRT, version="10.6.0", cuda="12"),
        options=BuildOptions(plugins=plugins),
    )


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Return the address of a real HTTP server whose one file is a library."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "libsample.so").write_bytes(_LIBRARY)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_libraries_come_from_a_server_and_from_disk_and_keep_their_order(origin: str, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(b"other")
    request = _request(
        PluginLibrary(uri=f"{origin}/libsample.so", sha256=_DIGEST),
        PluginLibrary(uri="other.so", sha256=sha256(b"other").hexdigest()),
    )
    found = fetch_plugins(request, tmp_path / "fetched", SilentReporter(), PluginPlaces(base=tmp_path))
    assert [path.name for path in found] == ["00-libsample.so", "01-other.so"]
    assert [path.read_bytes() for path in found] == [_LIBRARY, b"other"]


def test_a_missing_library_ends_the_build_before_its_child_starts(
    small_model: SmallModel, prepare_model: PrepareModel, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(small_model())
    request = _request(
        PluginLibrary(uri="libmissing.so", sha256=_DIGEST),
        store=str(tmp_path / "store"),
        preparation=preparation.preparation_key,
    )
    with pytest.raises(SourceError) as refusal:
        build(request, work, SilentReporter(), plugins_from=PluginPlaces(base=tmp_path))
    assert refusal.value.reason == "PluginMissing"
    assert refusal.value.where.startswith("build.plugins[0]: ")
    assert "libmissing.so" in refusal.value.where
    assert list(work.iterdir()) == []


def test_a_library_that_a_server_does_not_have_is_missing_too(origin: str, tmp_path: Path) -> None:
    request = _request(PluginLibrary(uri=f"{origin}/libnone.so", sha256=_DIGEST))
    with pytest.raises(SourceError) as refusal:
        fetch_plugins(request, tmp_path / "fetched", SilentReporter(), PluginPlaces())
    assert refusal.value.reason == "PluginMissing"


@pytest.mark.parametrize("remote", [True, False])
def test_a_changed_library_is_refused_with_both_digests(
    remote: bool,  # noqa: FBT001 - a parameter of the test
    origin: str,
    tmp_path: Path,
) -> None:
    uri = f"{origin}/libsample.so" if remote else str(tmp_path / "www" / "libsample.so")
    request = _request(PluginLibrary(uri=uri, sha256="1" * 64))
    with pytest.raises(SourceError) as refusal:
        fetch_plugins(request, tmp_path / "fetched", SilentReporter(), PluginPlaces())
    assert refusal.value.reason == "DigestMismatch"
    assert "1" * 64 in refusal.value.why
    assert _DIGEST in refusal.value.why


def test_a_library_in_a_volume_is_read_where_the_pod_has_mounted_it(tmp_path: Path) -> None:
    (tmp_path / "models" / "claim").mkdir(parents=True)
    (tmp_path / "models" / "claim" / "a.so").write_bytes(_LIBRARY)
    request = _request(PluginLibrary(uri="pvc://claim/a.so", sha256=_DIGEST))
    places = PluginPlaces(allowed=("pvc://claim",), variables={CLAIMS_FOLDER: str(tmp_path / "models")})
    (found,) = fetch_plugins(request, tmp_path / "fetched", SilentReporter(), places)
    assert (found.name, found.read_bytes()) == ("00-a.so", _LIBRARY)


def test_a_library_that_is_not_allowed_is_not_even_asked_for(tmp_path: Path) -> None:
    request = _request(PluginLibrary(uri="https://127.0.0.1:1/libsample.so?token=secret", sha256=_DIGEST))
    allowed = ("https://plugins.example/",)
    with pytest.raises(SpecError) as refusal:
        fetch_plugins(request, tmp_path / "fetched", SilentReporter(), PluginPlaces(allowed=allowed))
    assert refusal.value.reason == "PluginNotAllowed"
    assert "https://plugins.example/" in refusal.value.why
    assert "secret" not in str(refusal.value)


def test_a_library_whose_digest_is_allowed_may_come_from_anywhere(origin: str, tmp_path: Path) -> None:
    request = _request(PluginLibrary(uri=f"{origin}/libsample.so", sha256=_DIGEST))
    places = PluginPlaces.from_environment({"ENGINESMITH_PLUGINS_ALLOWED": f"sha256:{_DIGEST}"})
    (found,) = fetch_plugins(request, tmp_path / "fetched", SilentReporter(), places)
    assert found.read_bytes() == _LIBRARY


def test_a_library_whose_digest_is_not_among_the_allowed_is_not_even_asked_for(origin: str, tmp_path: Path) -> None:
    request = _request(PluginLibrary(uri=f"{origin}/libsample.so", sha256=_DIGEST))
    places = PluginPlaces.from_environment({"ENGINESMITH_PLUGINS_ALLOWED": f"sha256:{'1' * 64}"})
    with pytest.raises(SpecError) as refusal:
        fetch_plugins(request, tmp_path / "fetched", SilentReporter(), places)
    assert refusal.value.reason == "PluginNotAllowed"
    assert _DIGEST[:12] in refusal.value.why
    assert not (tmp_path / "fetched").exists()


def test_libraries_that_are_not_in_the_key_are_refused(tmp_path: Path) -> None:
    plugin = PluginLibrary(uri="a.so", sha256=_DIGEST)
    request = _request().model_copy(update={"options": BuildOptions(plugins=(plugin,))})
    with pytest.raises(BuildError) as refusal:
        fetch_plugins(request, tmp_path / "fetched", SilentReporter(), PluginPlaces())
    assert refusal.value.reason == "KeyDiffers"


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        ({}, None),
        ({"ENGINESMITH_PLUGINS_ALLOWED": ""}, ()),
        ({"ENGINESMITH_PLUGINS_ALLOWED": " s3://a, https://b/c\n/opt "}, ("s3://a", "https://b/c", "/opt")),
    ],
)
def test_the_variable_names_places_or_nothing_or_is_absent(
    variables: dict[str, str], want: tuple[str, ...] | None
) -> None:
    assert PluginPlaces.from_environment(variables).allowed == want


@pytest.mark.parametrize(
    ("uri", "allowed", "want"),
    [
        ("https://any.example/a.so", None, True),
        ("https://any.example/a.so", (), False),
        ("s3://plugins/trt/a.so", ("s3://plugins",), True),
        ("s3://plugins/trt/a.so", ("s3://plugins/trt/",), True),
        ("s3://plugins-of-others/a.so", ("s3://plugins",), False),
        ("s3://plugins/trt/../../a.so", ("s3://plugins/trt",), False),
        ("https://good.example/ok/%2e%2e/bad/a.so", ("https://good.example/ok",), False),
        ("https://good.example@evil.example/a.so", ("https://good.example",), False),
        ("https://GOOD.example/a.so", ("https://good.example",), True),
        ("http://good.example/a.so", ("https://good.example",), False),
        ("https://evil.example/?https://good.example/a.so", ("https://good.example",), False),
        ("oci://registry.example/plugins@sha256:1", ("oci://registry.example/plugins",), True),
        ("oci://registry.example/plugins-of-others:1", ("oci://registry.example/plugins",), False),
        ("s3://plugins:of/others/a.so", ("s3://plugins",), False),
        ("s3://any/a.so", ("s3://",), True),
        ("pvc://claim/trt/a.so", ("pvc://claim/trt",), True),
        ("pvc://claim/trt/../a.so", ("pvc://claim/trt",), False),
    ],
)
def test_only_what_lies_below_an_allowed_place_is_allowed(
    uri: str,
    allowed: tuple[str, ...] | None,
    want: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert is_allowed(uri, allowed) is want


def test_a_link_and_a_detour_out_of_an_allowed_folder_are_not_allowed(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "outside.so").write_bytes(_LIBRARY)
    (allowed / "inside.so").write_bytes(_LIBRARY)
    (allowed / "link.so").symlink_to(tmp_path / "outside.so")
    places = (str(allowed),)
    assert is_allowed("inside.so", places, allowed)
    assert is_allowed((allowed / "inside.so").as_uri(), places)
    assert not is_allowed("link.so", places, allowed)
    assert not is_allowed("../outside.so", places, allowed)
