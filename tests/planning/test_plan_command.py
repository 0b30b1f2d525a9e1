"""`enginesmith plan` as a person runs it."""

import io
import json
import os
from pathlib import Path

import pytest
import yaml

from enginesmith_cli.main import main
from enginesmith_contract.exit_codes import ExitCode

NODES = Path(__file__).parent / "data" / "nodes.yaml"
HEAD = "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: NAME}\n"
MODEL = "model: {uri: 's3://models/resnet50.onnx'}"


def _write(folder: Path, *targets: str) -> Path:
    file = folder / "engine.yaml"
    documents = [
        HEAD.replace("NAME", f"engine-{number}") + f"spec: {{{MODEL}, targets: [{target}]}}\n"
        for number, target in enumerate(targets)
    ]
    file.write_text("---\n".join(documents), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("targets", "want_code"),
    [
        (["{name: cpu, backend: onnxruntime}"], ExitCode.OK),
        (["{name: gpu, gpu: {product: NVIDIA-Nothing}}, {name: cpu, backend: onnxruntime}"], ExitCode.OK),
        (["{name: gpu, gpu: {product: NVIDIA-Nothing}}"], ExitCode.PLAN_REFUSED),
        (["{name: cpu, backend: onnxruntime}", "{name: gpu, gpu: {product: NVIDIA-Nothing}}"], ExitCode.PLAN_REFUSED),
    ],
)
def test_the_exit_code_says_whether_every_document_has_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], targets: list[str], want_code: ExitCode
) -> None:
    code = main(["plan", str(_write(tmp_path, *targets)), "--home", str(tmp_path)])

    assert code == want_code
    assert capsys.readouterr().out.count("preparation pending") == len(targets)


@pytest.mark.parametrize(
    ("precision", "target", "said"),
    [
        ("bf16", "{name: cpu, backend: onnxruntime}", "ONNX Runtime's cpu provider does not run bf16 models"),
        (
            "{default: fp8, calibration: 's3://samples/x.npz'}",
            "{name: old, gpu: {product: NVIDIA-A10}, backend: tensorrt-rtx}",
            "compute capability 8.6 has fp32, tf32, fp16, bf16, int8, not fp8",
        ),
    ],
)
def test_a_precision_that_the_backend_or_the_gpu_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, target: str, said: str
) -> None:
    file = _write(tmp_path, target)
    file.write_text(file.read_text(encoding="utf-8").replace("targets:", f"precision: {precision}, targets:"))

    assert main(["plan", str(file), "--home", str(tmp_path)]) == ExitCode.PLAN_REFUSED
    assert said in capsys.readouterr().out


def test_a_fleet_from_a_file_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}, backend: tensorrt-rtx}")

    code = main(["plan", str(file), "--nodes", str(NODES), "--home", str(tmp_path)])

    assert code == ExitCode.OK
    assert "l4-gce-driver595" in capsys.readouterr().out


def test_nodes_come_from_standard_input_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}, backend: tensorrt-rtx}")
    monkeypatch.setattr("sys.stdin", io.StringIO(NODES.read_text(encoding="utf-8")))

    assert main(["plan", str(file), "--nodes", "-", "--home", str(tmp_path)]) == ExitCode.OK
    assert "l4-gce-driver595" in capsys.readouterr().out


def test_a_file_of_something_else_is_no_list_of_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")

    assert main(["plan", str(file), "--nodes", str(file), "--home", str(tmp_path)]) == ExitCode.SPEC_INVALID
    assert "it holds an object of kind InferenceEngine" in capsys.readouterr().err


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_plan_is_a_document_for_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, read: type
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")

    assert main(["plan", str(file), "--home", str(tmp_path), "-o", output]) == ExitCode.OK

    document = read(capsys.readouterr().out)
    assert document["name"] == "engine-0"
    assert document["targets"][0]["engines"][0]["toolchain"]["backend"] == "onnxruntime"


def test_a_wrong_document_and_a_wrong_nodes_file_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")
    missing = tmp_path / "missing.yaml"

    assert main(["plan", str(missing)]) == ExitCode.SPEC_INVALID
    assert main(["plan", str(file), "--nodes", str(missing), "--home", str(tmp_path)]) == ExitCode.SPEC_INVALID
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_local_models_keys_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], ocr_models: Path) -> None:
    shapes = "{min: [1, 3, 48, 192], opt: [4, 3, 48, 192], max: [16, 3, 48, 192]}"
    profile = f"profiles: [{{inputs: {{x: {shapes}}}}}]"
    targets = "targets: [{name: cpu, backend: onnxruntime}]"
    file = tmp_path / "engine.yaml"
    spec = f"spec: {{model: {{uri: '{ocr_models / 'cls.onnx'}'}}, {profile}, {targets}}}\n"
    file.write_text(HEAD.replace("NAME", "cls") + spec, encoding="utf-8")

    assert main(["plan", str(file), "--home", str(tmp_path)]) == ExitCode.OK

    assert "(to be built)" in capsys.readouterr().out


_VALUES = """\
image: {repository: r/operator, digest: "sha256:0"}
toolchains:
  tensorrt-10.10:
    backend: tensorrt
    version: 10.10
    cuda: 12.6
    image: r/i@sha256:DIGEST
  broken: {backend: tensorrt, version: 10.6.0, image: "r/i:latest"}
""".replace("DIGEST", "a1" * 32)


def test_the_cluster_s_toolchains_come_from_the_chart_s_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}}")
    values = tmp_path / "values.yaml"
    values.write_text(_VALUES, encoding="utf-8")
    nodes = ("--nodes", str(NODES), "--home", str(tmp_path))

    without = main(["plan", str(file), *nodes])
    assert without == ExitCode.PLAN_REFUSED
    assert "no toolchain for tensorrt" in capsys.readouterr().out
    assert main(["plan", str(file), *nodes, "--values", str(values)]) == ExitCode.OK
    assert "tensorrt 10.10 " in capsys.readouterr().out


def test_values_may_come_through_a_pipe(tmp_path: Path) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}}")
    reader, writer = os.pipe()
    os.write(writer, _VALUES.encode())
    os.close(writer)
    words = ("--nodes", str(NODES), "--home", str(tmp_path), "--values", f"/dev/fd/{reader}")
    try:
        assert main(["plan", str(file), *words]) == ExitCode.OK
    finally:
        os.close(reader)


def test_several_files_of_values_are_merged_as_by_helm_and_their_labels_and_pools_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, "{name: rare, gpu: {product: Tesla-T4}}")
    (tmp_path / "images.yaml").write_text(_VALUES, encoding="utf-8")
    pool = "{name: spot, selector: {pool: spot}, product: Tesla-T4, gpus: 1}"
    (tmp_path / "values.yaml").write_text(
        f"toolchains: {{tensorrt-10.10: {{version: 10.9}}}}\nconfig: {{nodeClasses: [{pool}]}}\n", encoding="utf-8"
    )
    (tmp_path / "nodes.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: cpu}, status: {}}\n"
    )
    words = ["plan", str(file), "--nodes", str(tmp_path / "nodes.yaml"), "--home", str(tmp_path)]
    words += ["--values", str(tmp_path / "images.yaml")]

    assert main(words) == ExitCode.PLAN_REFUSED
    capsys.readouterr()
    assert main([*words, "--values", str(tmp_path / "values.yaml")]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "class spot" in said
    assert "tensorrt 10.9 " in said


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("a: [", ("--nodes", str(NODES)), "the values cannot be read"),
        ("store: {}", ("--nodes", str(NODES)), "the values have no toolchains"),
        ("toolchains: {}", ("--nodes", str(NODES)), "the values have no toolchains"),
        (f"{_VALUES}config: {{nodeClasses: 3}}", ("--nodes", str(NODES)), "`config` of the values is wrong"),
        (None, ("--nodes", str(NODES)), "the values cannot be read"),
        (_VALUES, (), "--values needs --nodes"),
    ],
)
def test_values_that_are_none_are_refused_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: tuple[str, ...], said: str
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")
    values = tmp_path / "values.yaml"
    if text is not None:
        values.write_text(text, encoding="utf-8")
    code = main(["plan", str(file), *words, "--values", str(values), "--home", str(tmp_path)])
    assert code == ExitCode.SPEC_INVALID
    assert said in capsys.readouterr().err


def _policies(folder: Path, *policies: str) -> Path:
    file = folder / "policies.yaml"
    head = "apiVersion: enginesmith.io/v1alpha1\nkind: EnginePolicy\n"
    file.write_text("---\n".join(head + one for one in policies), encoding="utf-8")
    return file


def test_everything_that_policies_forbid_is_said_before_anything_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}, {name: l4, gpu: {product: NVIDIA-L4}}")
    gpus = "metadata: {name: gpus}\nspec: {gpuProducts: [NVIDIA-T4]}\n"
    digests = "metadata: {name: digests}\nspec: {digestRequired: true, namespaceSelector: {names: [vision]}}\n"
    namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: a}}\n"
    labelled = "metadata: {name: labelled}\nspec: {precisions: [], namespaceSelector: {matchLabels: {team: b}}}\n"
    policies = _policies(tmp_path, gpus, digests, labelled + namespace)
    plain = ["plan", str(file), "--home", str(tmp_path), "--policies", str(policies)]

    code = main(plain)
    here = capsys.readouterr()
    assert main([*plain, "--namespace", "vision"]) == ExitCode.PLAN_REFUSED
    there = capsys.readouterr()

    assert code == ExitCode.PLAN_REFUSED
    assert "EnginePolicy gpus: spec.targets[1].gpu.product: NVIDIA-L4 is not allowed (allowed: NVIDIA-T4)" in here.err
    # The target that is allowed has a plan all the same.
    assert "serve" in here.out
    assert "EnginePolicy digests" not in here.err
    assert "EnginePolicy digests: spec.model.sha256: a digest is required" in there.err
    # Labels of a namespace that the file does not have are not known.
    assert "EnginePolicy labelled" not in here.err
    assert "EnginePolicy labelled" in there.err


def test_defaults_of_policies_are_used_and_shown_and_gpus_of_all_documents_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = "{name: l4, gpu: {product: NVIDIA-L4}, replicas: 2}"
    file = _write(tmp_path, gpu, f"{gpu}, {{name: cpu, backend: onnxruntime}}")
    gives = "metadata: {name: gives}\nspec: {limits: {gpus: 3}, defaults: {precision: fp16}}\n"
    # What the API server would refuse: it knows no defaults of other policies.
    asks = "metadata: {name: asks}\nspec: {precisions: [fp16], namespaceSelector: {names: [vision]}}\n"
    policies = _policies(tmp_path, gives, asks)
    plain = ["plan", str(file), "--home", str(tmp_path), "--policies", str(policies), "--nodes", str(NODES)]

    main(plain)
    here = capsys.readouterr()
    code = main([*plain, "--namespace", "vision"])
    there = capsys.readouterr()

    assert "  spec.precision fp16 (EnginePolicy gives)\n" in here.out
    assert "not allowed" not in here.err
    assert "namespace default: the documents ask for 4 GPUs together, EnginePolicy gives allows 3:" in here.err
    assert code == ExitCode.PLAN_REFUSED
    assert "EnginePolicy asks: spec.precision: fp32 is not allowed (allowed: fp16)" in there.err


def test_what_kubectl_prints_of_a_cluster_without_policies_forbids_nothing(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("kind: List\nitems: [{kind: Namespace, metadata: {name: default}}]\n")
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")
    words = ["plan", str(file), "--home", str(tmp_path), "--policies", str(tmp_path / "policies.yaml")]
    assert main(words) == ExitCode.OK


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("kind: Pod\n", "it has an object of kind Pod"),
        ("kind: EnginePolicy\nmetadata: {name: a}\nspec: {gpuProduct: [a]}\n", "spec.gpuProduct"),
        ("kind: List\nitems: []\n", "the file has no EnginePolicy and no Namespace"),
        ("- 1\n", "an item is not an object"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_without_policies_is_refused_with_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, want: str
) -> None:
    (tmp_path / "policies.yaml").write_text(text, encoding="utf-8")
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")

    code = main(["plan", str(file), "--home", str(tmp_path), "--policies", str(tmp_path / "policies.yaml")])

    assert code == ExitCode.SPEC_INVALID
    assert want in capsys.readouterr().err
