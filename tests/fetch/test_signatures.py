"""Signatures of models: which are taken, and what is said of the others."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.signing_keys import Key, bundle, make_key, sign_files

from enginesmith_contract.errors import SourceError, SpecError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.signatures import COSIGN
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.fetch.signatures import CosignSignature, SignedArtifact, check_artifact, check_files
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]
RECORDED = Path(__file__).parent / "data" / "model-signing-1.1.1"
"""Written by the tool itself."""


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "vision.pem")


@pytest.fixture
def folder(tmp_path: Path, write_model: WriteModel) -> Path:
    """A folder with a model and its weights in a file."""
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model" / "m.onnx", weights="weights.bin")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".onnx", ".bin"}}


def stored(name: str, content: bytes) -> StoredFile:
    return StoredFile(path=name, digest=sha256(content).hexdigest(), size_bytes=len(content))


def fetch(folder: Path, key: Key | None, tmp_path: Path, **fields: str) -> FetchedModel:
    signers = {} if key is None else {"vision": key.public}
    source = ModelSource(uri=str(folder / "m.onnx"), signers=signers, **fields)
    return fetch_model(source, tmp_path / "fetched", SilentReporter())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda one: one.name)
def test_a_signed_model_is_taken_and_its_signer_named(tmp_path: Path, folder: Path, curve: ec.EllipticCurve) -> None:
    key = make_key(tmp_path / "vision.pem", curve)
    (folder / "model.sig").write_bytes(sign_files(key, contents(folder)))
    assert fetch(folder, key, tmp_path).signed_by == "vision"


def test_a_signature_may_have_another_name_and_be_of_more_files_in_a_folder_above(
    tmp_path: Path, folder: Path, key: Key
) -> None:
    files = {f"deep/{name}": content for name, content in contents(folder).items()} | {"README.md": b"read me"}
    (folder / "release.sig").write_bytes(sign_files(key, files))
    assert fetch(folder, key, tmp_path, signature="release.sig").signed_by == "vision"


def test_a_model_over_http_needs_its_signature_at_each_look(
    web: SimpleNamespace, served: Path, tmp_path: Path, write_model: WriteModel, key: Key
) -> None:
    content = write_model(served / "m.onnx").read_bytes()
    source = ModelSource(uri=f"{web.url}/m.onnx", signers={"vision": key.public})
    with pytest.raises(SourceError) as caught:
        fetch_model(source, tmp_path / "fetched", SilentReporter())
    assert caught.value.reason == "SignatureMissing"
    (served / "model.sig").write_bytes(sign_files(key, {"m.onnx": content}))
    for _ in range(2):
        assert fetch_model(source, tmp_path / "fetched", SilentReporter()).signed_by == "vision"
    (served / "model.sig").write_bytes(sign_files(key, {"m.onnx": b"another"}))
    with pytest.raises(SourceError) as caught:
        fetch_model(source, tmp_path / "fetched", SilentReporter())
    assert caught.value.reason == "SignatureDiffers"


def test_a_model_without_a_signature_is_refused_with_what_is_missing_where(
    tmp_path: Path, folder: Path, key: Key
) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(folder, key, tmp_path)
    assert str(caught.value) == (
        f"{folder / 'model.sig'}: the model is not signed: a signature of one of the keys vision is required. Sign the "
        "model as docs/signatures.md says, or name its signature in spec.model.signature."
    )


@pytest.mark.parametrize("changed", ["m.onnx", "weights.bin"])
def test_a_file_that_changed_after_it_was_signed_is_named(tmp_path: Path, folder: Path, key: Key, changed: str) -> None:
    files = contents(folder) | {changed: b"as it was signed"}
    (folder / "model.sig").write_bytes(sign_files(key, files))
    with pytest.raises(SourceError, match=f"the signed sha256 of {changed} is") as caught:
        fetch(folder, key, tmp_path)
    assert caught.value.reason == "SignatureDiffers"


def test_weights_that_the_signature_does_not_cover_are_named(tmp_path: Path, folder: Path, key: Key) -> None:
    (folder / "model.sig").write_bytes(sign_files(key, {"m.onnx": contents(folder)["m.onnx"]}))
    with pytest.raises(SourceError, match=r"does not cover weights\.bin \(it covers m\.onnx\)"):
        fetch(folder, key, tmp_path)


def test_a_signature_of_another_key_or_a_changed_one_is_refused(tmp_path: Path, folder: Path, key: Key) -> None:
    other = make_key(tmp_path / "other.pem")
    document = sign_files(key, contents(folder))
    (folder / "model.sig").write_bytes(document)
    with pytest.raises(SourceError, match=r"one of vision must have signed") as caught:
        fetch(folder, other, tmp_path)
    assert caught.value.reason == "SignerUnknown"
    envelope = json.loads(document)
    envelope["dsseEnvelope"]["payload"] = json.loads(sign_files(other, contents(folder)))["dsseEnvelope"]["payload"][
        :-8
    ]
    (folder / "model.sig").write_text(json.dumps(envelope))
    with pytest.raises(SourceError):
        fetch(folder, key, tmp_path)


def test_no_trusted_key_takes_no_signature(tmp_path: Path, folder: Path, key: Key) -> None:
    (folder / "model.sig").write_bytes(sign_files(key, contents(folder)))
    with pytest.raises(SourceError, match="there is none"):
        fetch(folder, None, tmp_path)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"dsseEnvelope": {"payload": "?"}}', b"\xff\xfe"])
def test_what_is_no_bundle_is_named_so(tmp_path: Path, folder: Path, key: Key, document: bytes) -> None:
    (folder / "model.sig").write_bytes(document)
    with pytest.raises(SourceError) as caught:
        fetch(folder, key, tmp_path)
    assert caught.value.reason == "SignatureInvalid"


def test_a_signed_statement_of_another_kind_is_no_signature_of_a_model(key: Key) -> None:
    source = ModelSource(uri="m.onnx", signers={"vision": key.public})
    document = bundle(key, {"predicateType": "https://slsa.dev/provenance/v1", "predicate": {}})
    with pytest.raises(SourceError, match=r"its predicate is https://slsa\.dev/provenance/v1") as caught:
        check_files(source, [stored("m.onnx", b"")], document, "model.sig")
    assert caught.value.reason == "SignatureInvalid"


@pytest.mark.parametrize(
    ("signature", "names"), [("folder.sig", ("model.onnx", "weights/w.bin")), ("file.sig", ("model.onnx",))]
)
def test_what_the_tool_of_the_openssf_signed_is_taken(signature: str, names: tuple[str, ...]) -> None:
    source = ModelSource(uri="model.onnx", signers={"tool": (RECORDED / "key.pub").read_text()})
    files = [stored(name, (RECORDED / "model" / name).read_bytes()) for name in names]
    document = (RECORDED / signature).read_bytes()
    assert check_files(source, files, document, signature) == "tool"
    with pytest.raises(SourceError, match="is not the one that was signed"):
        check_files(source, [stored("model.onnx", b"changed"), *files[1:]], document, signature)


def test_a_key_that_is_none_is_said_to_be_none() -> None:
    source = ModelSource(uri="m.onnx", signers={"vision": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"})
    with pytest.raises(SpecError, match="not a public key in PEM"):
        check_files(source, [stored("m.onnx", b"")], (RECORDED / "file.sig").read_bytes(), "model.sig")


def simple_signing(key: Key, digest: str) -> CosignSignature:
    image = {"docker-manifest-digest": f"sha256:{digest}"}
    payload = json.dumps({"critical": {"image": image, "type": "cosign container image signature"}}).encode()
    return CosignSignature(payload, key.sign(payload))


def test_an_artifact_that_cosign_signed_is_taken_for_the_files_that_are_its_layers(tmp_path: Path, key: Key) -> None:
    source = ModelSource(uri="oci://registry/m:v1", signature=COSIGN, signers={"vision": key.public})
    file, other = stored("m.onnx", b"model"), make_key(tmp_path / "other.pem")
    layers = {"m.onnx": f"sha256:{file.digest}"}
    statement = {"subject": [{"digest": {"sha256": "a" * 64}}]}
    good = simple_signing(key, "a" * 64)
    for signatures in (
        [good],
        [simple_signing(other, "a" * 64), good],
        [CosignSignature(bundle(key, statement), None)],
    ):
        assert check_artifact(source, [file], SignedArtifact("a" * 64, layers, signatures), "m") == "vision"
    for signatures, files, reason in (
        ([], [file], "SignatureMissing"),
        ([simple_signing(other, "a" * 64)], [file], "SignerUnknown"),
        ([simple_signing(key, "b" * 64)], [file], "SignatureDiffers"),
        ([good], [stored("m.onnx", b"changed")], "SignatureDiffers"),
        ([good], [file, stored("weights.bin", b"")], "SignatureDiffers"),
    ):
        with pytest.raises(SourceError) as caught:
            check_artifact(source, files, SignedArtifact("a" * 64, layers, signatures), "m")
        assert caught.value.reason == reason


def test_cosign_signs_nothing_that_is_not_in_a_registry(tmp_path: Path, folder: Path, key: Key) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(folder, key, tmp_path, signature=COSIGN)
    assert caught.value.reason == "SignatureMissing"
