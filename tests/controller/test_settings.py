"""The operator's configuration file: what it takes, and what it says of what it does not."""

from pathlib import Path

import pytest

from enginesmith_contract.errors import SpecError
from enginesmith_operator.controller.shared.settings import LabelSettings, OperatorSettings, load_settings
from enginesmith_operator.planning.label_mapping import Resource, load_label_mapping

_WHOLE = """
store:
  default: {s3: {bucket: engines, endpoint: "http://s3.example:9000", secretRef: {name: engines-s3}}}
  shared: true
catalog: {name: toolchains, namespace: platform}
lease: {name: enginesmith, namespace: platform}
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
    assert settings.node_classes[0].gpus == 8
    assert float(settings.preparation.ttl_seconds) == 600.0


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert load_settings(None) == load_settings(_file(tmp_path, "")) == OperatorSettings()


@pytest.mark.parametrize(
    ("text", "want_in_message"),
    [
        ("workers: 0\nhealthport: 1\n", ("workers", "healthport")),
        ("store: {default: {path: /engines}}\n", ("local mode only",)),
        ("[1, 2]\n", ("document",)),
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
