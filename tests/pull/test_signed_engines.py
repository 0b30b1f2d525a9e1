"""A store whose engines are signed: what is built, reused and served, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pull.test_pull_process import pull
from tests.signing_keys import Key, make_key

from enginesmith_contract.environment import BUILD_ORIGIN, ENGINE_KEYS, SIGNING_KEY
from enginesmith_contract.errors import EngineRefusedError, SpecError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.keys import EngineCandidate
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.provenance import BuildOrigin
from enginesmith_contract.pull_request import PullRequest
from enginesmith_contract.signatures import TrustedKeys
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.credential_files import without_credentials
from enginesmith_runtime.prepare.report import find_stored_engines
from enginesmith_runtime.store.engines import find_engine
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.records import parse_manifest_to_serve

BuildEngine = Callable[..., Manifest]
MakePull = Callable[..., PullRequest]

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Key]:
    """Two keys of builders, of which the newer one signs; both are trusted."""
    made = {name: make_key(tmp_path / f"{name}.pem") for name in ("old", "new")}
    trust(monkeypatch, made)
    monkeypatch.setenv(SIGNING_KEY, str(made["new"].path))
    return made


def trust(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Key]) -> str:
    text = TrustedKeys(keys={name: key.public for name, key in keys.items()}).to_json().decode()
    monkeypatch.setenv(ENGINE_KEYS, text)
    return text


def alter(store: Store, manifest: Manifest, **fields: object) -> None:
    pointer = engine_pointer(manifest.engine_key)
    document = json.loads(store.read_pointer(pointer) or b"")
    store.replace_pointer(pointer, json.dumps(document | fields).encode())


def test_a_signed_engine_is_reused_and_served_while_one_of_its_keys_is_trusted(
    keys: dict[str, Key], build_engine: BuildEngine, store: Store, make_pull: MakePull,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    built = build_engine()
    assert built.signature is not None
    assert find_engine(store, built.engine_key) == built == build_engine()
    new = trust(monkeypatch, {"new": keys["new"]})
    assert pull(make_pull(built), tmp_path, **{ENGINE_KEYS: new})[0] == ExitCode.OK
    old = trust(monkeypatch, {"old": keys["old"]})
    code, report = pull(make_pull(built), tmp_path, **{ENGINE_KEYS: old})
    assert (code, report.failure and report.failure.reason) == (ExitCode.ENGINE_REFUSED, "EngineUntrusted")
    assert find_engine(store, built.engine_key) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"engineDigest": "0" * 64},
        {"signature": {"keyId": "0" * 64, "value": "AAAA"}},
        {"later": "a field of a later release"},
    ],
    ids=str,
)
def test_a_manifest_that_was_changed_in_the_store_is_not_there_for_a_build_and_refused_by_a_server(
    keys: dict[str, Key], build_engine: BuildEngine, store: Store, fields: dict[str, object]
) -> None:
    assert keys
    built = build_engine()
    alter(store, built, **fields)
    pointer = engine_pointer(built.engine_key)
    with pytest.raises(EngineRefusedError) as caught:
        parse_manifest_to_serve(store.read_pointer(pointer) or b"", built.engine_key, pointer)
    assert caught.value.reason in {"EngineUntrusted", "ManifestUnreadable"}
    assert find_engine(store, built.engine_key) is None
    again = build_engine()
    assert find_engine(store, built.engine_key) == again
    assert again.signature is not None


def test_a_signed_manifest_under_another_key_is_not_taken(
    keys: dict[str, Key], build_engine: BuildEngine, store: Store
) -> None:
    assert keys
    one, other = build_engine("NVIDIA-L4"), build_engine("NVIDIA-T4")
    store.replace_pointer(engine_pointer(one.engine_key), store.read_pointer(engine_pointer(other.engine_key)) or b"")
    assert find_engine(store, one.engine_key) is None


def test_a_preparation_does_not_report_an_engine_that_is_not_signed_and_says_so(
    keys: dict[str, Key], build_engine: BuildEngine, store: Store
) -> None:
    assert keys
    built = build_engine()
    candidate = EngineCandidate.model_validate(built.key_inputs.model_dump(exclude={"preparation_key"}))
    prepared = built.key_inputs.preparation_key
    assert find_stored_engines(store, prepared, [candidate]) == ({built.engine_key: built.engine_digest}, ())
    alter(store, built, signature=None)
    found, warnings = find_stored_engines(store, prepared, [candidate])
    assert not found
    assert warnings == (
        f"engine {built.engine_key[:12]} in the store is not used: its manifest or the signature cannot be read",
    )


def test_an_engine_from_before_signatures_is_built_again(
    keys: dict[str, Key], build_engine: BuildEngine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENGINE_KEYS)
    monkeypatch.delenv(SIGNING_KEY)
    unsigned = build_engine()
    assert unsigned.signature is None
    trust(monkeypatch, keys)
    assert find_engine(store, unsigned.engine_key) is None
    with pytest.raises(SpecError, match=r"signatures\.engineSecret"):
        build_engine()
    monkeypatch.setenv(SIGNING_KEY, str(keys["old"].path))
    signed = build_engine()
    assert signed.signature is not None
    monkeypatch.delenv(SIGNING_KEY)
    assert build_engine() == signed


def test_builders_that_sign_with_a_key_that_is_not_trusted_say_so(
    keys: dict[str, Key], build_engine: BuildEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys
    monkeypatch.setenv(SIGNING_KEY, str(make_key(tmp_path / "other.pem").path))
    with pytest.raises(SpecError, match="not trusted") as caught:
        build_engine()
    assert caught.value.reason == "KeyInvalid"


def test_a_build_says_who_built_where_and_from_what_and_its_key_does_not_change(
    build_engine: BuildEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin = BuildOrigin(
        image="registry/ort@sha256:0", operator_version="1.2.3", cluster="east", namespace="vision", job="j", engine="e"
    )
    monkeypatch.setenv(BUILD_ORIGIN, origin.to_json().decode())
    built = build_engine()
    assert built.provenance is not None
    found = json.loads(built.provenance.to_json())
    assert found["buildDefinition"]["buildType"] == "https://enginesmith.io/engine-build/v1"
    assert found["buildDefinition"]["externalParameters"]["engine"] == "e"
    assert found["buildDefinition"]["internalParameters"] == {"cluster": "east", "namespace": "vision"}
    dependencies = {one["name"]: one for one in found["buildDefinition"]["resolvedDependencies"]}
    assert dependencies["model"]["digest"] == {"sha256": built.source_digest}
    assert dependencies["preparation"]["digest"] == {"sha256": built.key_inputs.preparation_key}
    assert dependencies["toolchain"]["annotations"]["version"] == built.toolchain.version
    assert found["runDetails"]["builder"]["id"] == "registry/ort@sha256:0"
    assert found["runDetails"]["builder"]["version"]["operator"] == "1.2.3"
    assert found["runDetails"]["metadata"]["invocationId"] == "j"
    assert found["runDetails"]["metadata"]["finishedOn"] == built.created_at
    monkeypatch.delenv(BUILD_ORIGIN)
    (tmp_path / "store").rename(tmp_path / "before")
    by_hand = build_engine()
    assert by_hand.engine_key == built.engine_key
    assert by_hand.provenance is not None
    assert by_hand.provenance.run_details.builder.id == "enginesmith build"


def test_a_child_of_a_build_is_not_told_where_the_key_is(tmp_path: Path) -> None:
    variables = {SIGNING_KEY: str(tmp_path / "key.pem"), "PATH": "/bin"}
    assert without_credentials(variables) == {"PATH": "/bin"}
