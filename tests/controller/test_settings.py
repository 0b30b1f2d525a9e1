"""The operator's configuration file: what it takes, and what it says of what it does not."""

from pathlib import Path

import pytest

from enginesmith_contract.address_rules import AddressRules
from enginesmith_contract.errors import SpecError
from enginesmith_operator.controller.shared.settings import LabelSettings, OperatorSettings, load_settings
from enginesmith_operator.planning.label_mapping import Resource, load_label_mapping

_WHOLE = """
store:
  default: {s3: {bucket: engines, endpoint: "http://s3.example:9000", secretRef: {name: engines-s3}}}
  shared: true
namespaces: [vision, speech]
catalog: {name: toolchains, namespace: platform}
lease: {name: enginesmith, namespace: platform}
registrationNamespace: platform
labels:
  resources: [{name: example.com/gpu, shared: true}]
nodeClasses:
  - {name: h100, selector: {pool: h100}, product: NVIDIA-H100-80GB-HBM3, gpus: 8}
nodeGrace: 90s
preparation: {ttl: 10m, resources: {limits: {memory: 8Gi}}}
build: {backoffLimit: 1}
allowedPlugins: ["0000000000000000000000000000000000000000000000000000000000000000"]
buildForAbsentGpus: true
workers: 4
healthPort: 9090
resync: 5m
tracing: {endpoint: "http://collector:4317", variables: {OTEL_TRACES_SAMPLER: always_on}}
addresses: {allowed: [10.1.0.0/16, "fd12::/64"], denied: [203.0.114.0/24]}
clusterName: east
signatures:
  modelKeys:
    vision: |
      -----BEGIN PUBLIC KEY-----
      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPoL1NBvJXX5hD4R/lOfzI7GE2Sv6
      4HfmkrIV6LnV+dOr4jc4R15T6W6tOR+Pp4sJ9hUoJD0DQk7NnHYlxUZ0Kg==
      -----END PUBLIC KEY-----
  engineSecret: enginesmith-signing
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "operator.yaml"
    path.write_text(text)
    return path


def test_every_field_is_read(tmp_path: Path) -> None:
    settings = load_settings(_file(tmp_path, _WHOLE))
    assert settings.model_fields_set == set(OperatorSettings.model_fields)
    assert settings.store.default is not None
    assert settings.store.default.s3 is not None
    assert settings.namespaces == ("vision", "speech")
    assert settings.node_classes[0].gpus == 8
    assert float(settings.preparation.ttl_seconds) == 600.0
    assert settings.address_rules == AddressRules(
        allowed=("10.1.0.0/16", "fd12::/64"), denied=("203.0.114.0/24",), endpoints=("http://s3.example:9000",)
    )


def test_a_collector_becomes_the_variables_of_the_sdk(tmp_path: Path) -> None:
    settings = load_settings(_file(tmp_path, _WHOLE)).tracing
    assert settings is not None
    assert settings.environment == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER": "always_on",
    }


@pytest.mark.parametrize("name", ["OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "PATH", "otel_traces_sampler"])
def test_a_variable_that_is_not_of_the_sdk_or_has_a_field_is_refused(tmp_path: Path, name: str) -> None:
    text = f"tracing: {{endpoint: 'http://a:1', variables: {{{name}: x}}}}"
    with pytest.raises(SpecError, match=rf"tracing.*(sets {name}|String should match pattern)"):
        load_settings(_file(tmp_path, text))


@pytest.mark.parametrize(
    ("signatures", "want"),
    [
        ("{modelKeys: {vision: AAAA}}", "signatures.modelKeys.vision: expected a public key in PEM"),
        ("{modelKeys: {vision: '-----BEGIN PRIVATE KEY-----'}}", "expected a public key in PEM"),
        ("{engineSecret: 'A key'}", "signatures.engineSecret"),
    ],
)
def test_a_key_that_is_none_is_named(tmp_path: Path, signatures: str, want: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_settings(_file(tmp_path, f"signatures: {signatures}"))
    assert want in str(caught.value)


def test_a_store_that_takes_signed_engines_only_needs_a_key_to_sign_with(tmp_path: Path) -> None:
    text = _WHOLE.replace("modelKeys", "engineKeys").replace("  engineSecret: enginesmith-signing\n", "")
    with pytest.raises(SpecError, match="builders cannot store engines"):
        load_settings(_file(tmp_path, text))


def test_the_registry_of_the_default_store_is_an_endpoint(tmp_path: Path) -> None:
    text = "store: {default: {oci: {repository: 'r.example:5000/engines', plainHttp: true}}}"
    assert load_settings(_file(tmp_path, text)).address_rules.endpoints == ("http://r.example:5000/engines",)


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert load_settings(None) == load_settings(_file(tmp_path, "")) == OperatorSettings()


@pytest.mark.parametrize(
    ("text", "want_in_message"),
    [
        ("workers: 0\nhealthport: 1\n", ("workers", "healthport")),
        ("store: {default: {path: /engines}}\n", ("only in local mode",)),
        ("[1, 2]\n", ("document",)),
        ("addresses: {allowed: [10.1.0.1/16, 10.1.0.1]}\n", ("addresses.allowed.0", "addresses.allowed.1", "range")),
        ("store: {\n", ("cannot be read",)),
    ],
)
def test_a_wrong_file_is_refused_with_every_wrong_field(
    tmp_path: Path, text: str, want_in_message: tuple[str, ...]
) -> None:
    with pytest.raises(SpecError) as caught:
        load_settings(_file(tmp_path, text))
    for words in want_in_message:
        assert words in caught.value.sentence()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        load_settings(tmp_path / "nothing.yaml")


def test_an_administrator_s_resource_goes_before_the_product_s_own_of_that_name() -> None:
    shared = Resource(name="nvidia.com/gpu", shared=True)
    merged = LabelSettings(resources=(shared,)).merged()
    assert [one for one in merged.resources if one.name == "nvidia.com/gpu"] == [shared]
    assert len(merged.resources) == len(load_label_mapping().resources)
