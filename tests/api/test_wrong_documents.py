"""Wrong documents: every problem is named with its line, its field, what was found and what would do."""

from collections.abc import Callable

import pytest

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents, read_object
from enginesmith_operator.api.problems import SpecProblemsError

Documents = Callable[[str], str]

# Lines of spec (the first is line 5 of the file), then fragments of the one problem's sentence.
WRONG = [
    ("build: {optimizationLevel: 7}", ["engine.yaml:5", "spec.build.optimizationLevel: found 7", "valid value is 5"]),
    ("build: {optimizationLevel: -1}", ["spec.build.optimizationLevel: found -1", "the nearest valid value is 0"]),
    ('build: {optimizationLevel: "3"}', ['found "3"', "a whole number", "valid value is 3", "without quotes"]),
    ("build: {optimizationLevel: 3.4}", ["found 3.4", "a whole number", "the nearest valid value is 3"]),
    ("build: {workspace: 2GB}", ['spec.build.workspace: found "2GB"', "did you mean `2G`?"]),
    ("serving: {maxMessageBytes: 2Gi}", ["spec.serving.maxMessageBytes", "at most 2147483647"]),
    ("serving: {frontEnds: 33}", ["spec.serving.frontEnds: found 33", "valid value is 32"]),
    ("serving: {maxQueued: -1}", ["spec.serving.maxQueued: found -1", "valid value is 0"]),
    ("serving: {maxStreams: 0}", ["spec.serving.maxStreams: found 0", "valid value is 1"]),
    ("serving: {maxStreams: 4097}", ["spec.serving.maxStreams: found 4097", "valid value is 4096"]),
    (
        'targets: [{name: a, backendOptions: {spinn: "false"}}]',
        ["spec.targets[0].backendOptions.spinn", "tensorrt has no such option", "did you mean spin?", "cudaGraphs"],
    ),
    (
        'targets: [{name: a, backend: onnxruntime, backendOptions: {cudaGraphs: "1"}}]',
        ["backendOptions.cudaGraphs", "onnxruntime has no such option", "intraOpThreads", "provider.<name>"],
    ),
    (
        "targets: [{name: a, backendOptions: {pinnedMemoryLimit: 1GB}}]",
        ["backendOptions.pinnedMemoryLimit", 'found "1GB"', "512Mi"],
    ),
    ("targets: [{name: a, backendOptions: {cudaGraphs: 4}}]", ["backendOptions.cudaGraphs: found 4", "string"]),
    ("build: {timeout: 30}", ["spec.build.timeout: found 30", "did you mean `30s`?"]),
    ("build: {hardwareCompatibility: ampere-plus}", ["spec.build.hardwareCompatibility", "did you mean `amperePlus`?"]),
    (
        "build: {optimization_level: 3}",
        ["spec.build.optimization_level", "camelCase", "did you mean `optimizationLevel`"],
    ),
    ("build: {optimisationLevel: 3}", ["unknown field", "did you mean `optimizationLevel`?"]),
    ("build: {refittable: 'yes'}", ["spec.build.refittable", "true or false", "did you mean `true`?"]),
    ("build:", ["spec.build: found nothing", "the field is empty", "remove the line"]),
    ("build: []", ["spec.build: found []", "expected a mapping"]),
    ("build: {plugins: {}}", ["spec.build.plugins", "expected a list"]),
    ("build: {plugins: [{uri: a.so}]}", ["spec.build.plugins[0].sha256", "required"]),
    ("replicas: 2", ["spec.replicas", "unknown field", "move it to spec.targets[].replicas"]),
    ("precision: fp61", ['spec.precision: found "fp61"', "did you mean `fp16`?"]),
    ("precision: FP16", ["spec.precision", "did you mean `fp16`?"]),
    ("precision: 16", ["spec.precision: found 16", "fp16", "or a mapping"]),
    ("precision: int8", ["spec.precision", "needs calibration data"]),
    (
        "precision: {default: fp16, fallback: fp32}",
        ["spec.precision.fallback", "not implemented yet", "remove the field"],
    ),
    ("serving: {batching: {enabled: true}}", ["spec.serving.batching", "not implemented yet", "remove the field"]),
    ("precision: {keep: Softmax}", ["spec.precision.keep", "expected a list"]),
    ("profiles: [{inputs: {x: {min: [9], opt: [8], max: [4]}}}]", ["spec.profiles[0].inputs.x.min[0]: found 9"]),
    (
        "profiles: [{inputs: {x: {min: [1], opt: [8], max: [4]}}}]",
        ["x.opt[0]: found 8", "the nearest valid value is 4"],
    ),
    (
        "profiles: [{inputs: {x: {min: [2], opt: [1], max: [4]}}}]",
        ["x.opt[0]: found 1", "the nearest valid value is 2"],
    ),
    ("profiles: [{inputs: {x: {min: [1, 2], opt: [1], max: [1]}}}]", ["x.min: found [1, 2]", "valid value is [1]"]),
    ("profiles: [{inputs: {x: {min: [1], opt: [1, 9], max: [1, 9]}}}]", ["x.min", "the nearest valid value is [1, 9]"]),
    ("profiles: [{inputs: {x: {min: [-1], opt: [1], max: [1]}}}]", ["x.min[0]: found -1", "at least 0"]),
    (
        "profiles: [{inputs: {k: {min: [1], opt: [1], max: [1], values: {min: [4], opt: [2], max: [9]}}}}]",
        ["inputs.k.values.opt[0]: found 2", "the nearest valid value is 4"],
    ),
    (
        "profiles: [{inputs: {k: {min: [1], opt: [1], max: [1], values: {min: [1, 1], opt: [2], max: [9]}}}}]",
        ["inputs.k.values.min: found [1, 1]", "the nearest valid value is [1]"],
    ),
    ("profiles: [{inputs: {input.1: {min: [-1], opt: [1], max: [1]}}}]", ['spec.profiles[0].inputs["input.1"].min[0]']),
    ("profiles: [{inputs: {x: {min: [1], opt: [1]}}}]", ["spec.profiles[0].inputs.x.max", "required"]),
    ("profiles: [{name: a}]", ["spec.profiles[0].inputs", "required"]),
    ("profiles: [{inputs: {}}]", ["spec.profiles[0].inputs", "at least 1"]),
    (
        "profiles: [{name: a, inputs: {x: &x {min: [1], opt: [1], max: [1]}}}, {name: a, inputs: {x: *x}}]",
        ["spec.profiles[1].name", "did you mean `a-2`?"],
    ),
    ("targets: []", ["spec.targets: found []", "at least 1"]),
    ("targets: [{name: a}, {name: a}, {name: a-2}]", ['spec.targets[1].name: found "a"', "did you mean `a-3`?"]),
    ("targets: [{name: a, backend: onnxruntme}]", ["spec.targets[0].backend", "did you mean `onnxruntime`?"]),
    ("targets: [{name: a, backend: TensorRT_RTX}]", ["did you mean `tensorrt-rtx`?"]),
    ("targets: [{name: A100 big}]", ["spec.targets[0].name", "did you mean `a100-big`?"]),
    ("targets: [{name: 3090}]", ["spec.targets[0].name: found 3090", "expected a string", "in quotes"]),
    ("targets: [{name: a, provider: cpu}]", ["spec.targets[0].provider", "no execution providers", "onnxruntime"]),
    (
        "targets: [{name: a, replicas: 1, autoscaling: {maxReplicas: 2}}]",
        ["spec.targets[0].replicas", "must not be set together"],
    ),
    ("targets: [{name: a, autoscaling: {minReplicas: 3, maxReplicas: 2}}]", ["autoscaling.minReplicas", "value is 2"]),
    ("targets: [{name: a, gpu: {computeCapability: 8.9}}]", ["gpu.computeCapability: found 8.9", 'value is "8.9"']),
    (
        "targets: [{name: a, gpu: {computeCapability: sm_89}}]",
        ["gpu.computeCapability", "the nearest valid value is 8.9"],
    ),
    ("targets: [{name: a, gpu: {product: NVIDIA A100}}]", ["gpu.product", "did you mean `NVIDIA-A100`?"]),
    ("targets: [{name: a, gpu: {product: Tesla-T4-SHARED}}]", ["gpu.product", "did you mean `Tesla-T4`?"]),
    (
        "targets: [{name: a, gpu: {product: NVIDIA-A100-SXM4-80GB-MIG-1g.10gb}}]",
        ["did you mean `NVIDIA-A100-SXM4-80GB`?", "set gpu.migProfile to 1g.10gb"],
    ),
    (
        "targets: [{name: a, gpu: {product: NVIDIA-L4-MIG-1g.24gb-me-SHARED}}]",
        ["did you mean `NVIDIA-L4`?", "set gpu.migProfile to 1g.24gb-me"],
    ),
    ("targets: [{name: a, gpu: {migProfile: 1g.24gb-gfx}}]", ["gpu.migProfile", "expected a MIG profile"]),
    ("targets: [{name: a, gpu: {migProfile: mig-1g.10gb}}]", ["gpu.migProfile", "did you mean `1g.10gb`?"]),
    ("toolchain: {tensorrt: 10.9}", ["spec.toolchain.tensorrt: found 10.9", "in quotes"]),
    ('toolchain: {tensorrt: "10.13.x"}', ["spec.toolchain.tensorrt", "the nearest valid value is ==10.13.*"]),
    ('toolchain: {tensorrt: ">=10.9 <12"}', ["the nearest valid value is >=10.9,<12"]),
    ('verification: {limit: "1e-2"}', ["spec.verification.limit", "a number", "without quotes"]),
    ("verification: {limit: .nan}", ["spec.verification.limit", "finite"]),
    ("verification: {limit: 0}", ["spec.verification.limit", "more than 0"]),
    ("verification: {inputs: {x: {range: [2, 1]}}}", ["inputs.x.range: found [2, 1]", "valid value is [1, 2]"]),
    (
        "verification: {inputs: {x: {range: [0, 1], constant: 1}}}",
        ["inputs.x", "exactly one of range, constant and npz"],
    ),
    ("model: {uri: s4://b/m.onnx}", ["engine.yaml:5", "spec.model.uri", "did you mean `s3://b/m.onnx`?"]),
    ("model: {uri: https://me:pw@host/m.onnx}", ["credentials", "did you mean `https://host/m.onnx`?"]),
    ("model: {uri: s3://}", ["spec.model.uri", "nothing after the scheme"]),
    ("model: {}", ["spec.model.uri", "required"]),
    ("model: {uri: m.onnx, sha256: 'SHA256:00'}", ["spec.model.sha256", "64 hexadecimal digits"]),
    ("model: {uri: m.onnx, options: {secret_key: x}}", ["spec.model.options.secret_key", "spec.model.secretRef"]),
    ("model: {uri: m.onnx, options: {port: 80}}", ["spec.model.options.port: found 80", 'valid value is "80"']),
    ("store: {pvc: {claimName: a}, path: b}", ["spec.store", "exactly one of pvc, s3, oci and path"]),
    ("store: {pvc: {claim: a}}", ["spec.store.pvc"]),
    ("rollout: {whenFull: Replace}", ["spec.rollout.whenFull", "did you mean `replace`?"]),
    ("podTemplate: {env: [{name: A, value: true}]}", ["spec.podTemplate.env[0].value", 'did you mean `"true"`?']),
    ("podTemplate: {env: [{name: A, value: 08}]}", ["spec.podTemplate.env[0].value: found 8"]),
    (
        "podTemplate: {env: [{name: PYTHONPATH, value: /models/weights}]}",
        ["spec.podTemplate.env[0].name", "PYTHONPATH changes what the pods' processes load", "remove it"],
    ),
    (
        "podTemplate: {env: [{name: ld_preload, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}",
        ["spec.podTemplate.env[0].name", "so it is not allowed"],
    ),
    ("podTemplate: {tolerations: [{operator: exists}]}", ["tolerations[0].operator", "did you mean `Exists`?"]),
    ("podTemplate: {resources: {limits: {memory: 4GB}}}", ["spec.podTemplate.resources.limits.memory", "quantity"]),
    ("build: {epoch: 1, epoch: 2}", ["spec.build.epoch", "set twice, first on line 5"]),
]


def _problems(text: str) -> list[str]:
    with pytest.raises(SpecProblemsError) as caught:
        load_documents(text, where="engine.yaml")
    assert caught.value.reason == "SpecInvalid"
    return [problem.sentence() for problem in caught.value.problems]


@pytest.mark.parametrize(("lines", "want_fragments"), WRONG, ids=[lines[:60] for lines, _ in WRONG])
def test_a_wrong_field_is_named_with_what_would_do(
    lines: str, want_fragments: list[str], document_with: Documents
) -> None:
    sentences = _problems(document_with(lines))

    matching = [sentence for sentence in sentences if all(fragment in sentence for fragment in want_fragments)]
    assert matching, sentences


def test_all_problems_are_listed_in_the_order_of_their_lines(document_with: Documents) -> None:
    text = document_with("""
    precision: fp61
    targets:
      - name: a
        backend: onnxruntme
        standby: perhaps
    build:
      optimizationLevel: 9
    """)

    assert [sentence.split(": found")[0] for sentence in _problems(text)] == [
        "engine.yaml:5: spec.precision",
        "engine.yaml:8: spec.targets[0].backend",
        "engine.yaml:9: spec.targets[0].standby",
        "engine.yaml:11: spec.build.optimizationLevel",
    ]


@pytest.mark.parametrize(
    ("text", "want_fragments"),
    [
        ("", ["engine.yaml: the file has no document"]),
        ("# only a comment\n---\n", ["has no document"]),
        ("- a", ["engine.yaml:1", "expected a mapping of kind InferenceEngine"]),
        ("text", ['found "text"', "expected a mapping"]),
        ("a: [", ["engine.yaml:2"]),
        ("a: b: c", ["engine.yaml:1", "mapping values are not allowed"]),
        ("\ta: 1", ["engine.yaml:1"]),
        ("a: \x00", ["engine.yaml:1"]),
        ("a: &x [*x]", ["the alias *x has no earlier anchor"]),
        ("a: !!python/object:os.system {}", ["the tag", "not supported"]),
        ("a: !!timestamp 2026-01-01", ["the tag", "not supported"]),
        ("1: a", ["a field's name must be a string", 'valid value is "1"']),
        ("? [a]\n: b", ["a field's name must be a string"]),
        ("apiVersion: v1\nkind: Pod\nspec: {}", ['kind: found "Pod": expected InferenceEngine']),
        ("apiVersion: enginesmith.io/v1\nkind: InferenceEngine", ["no other version", "enginesmith.io/v1alpha1"]),
        ("apiVersion: enginesmith.io/v1alpha1\nkind: Inferenceengine", ["did you mean `InferenceEngine`?"]),
        ("kind: InferenceEngine", ["did you mean `apiVersion: enginesmith.io/v1alpha1`?"]),
        ("[" * 2000, ["nested more than"]),
        ("{a: " * 2000, ["nested more than"]),
        ("---\n" * 300, ["more than 256 documents"]),
        ("#" * ((1 << 20) + 1), ["larger than"]),
        ("{<<: 1}", ["a mapping or a list of mappings after a merge key"]),
    ],
)
def test_what_is_no_engine_at_all_gets_a_sentence(text: str, want_fragments: list[str]) -> None:
    sentences = _problems(text)

    assert any(all(fragment in sentence for fragment in want_fragments) for sentence in sentences), sentences


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]

    (sentence,) = _problems("\n".join(lines))

    assert "too many values" in sentence


def test_a_merge_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]

    assert any("too many values" in sentence for sentence in _problems("\n".join(lines)))


def test_two_documents_of_one_name_are_refused(document_with: Documents) -> None:
    (sentence,) = _problems(f"{document_with('')}---\n{document_with('')}")

    assert "engine.yaml:9: metadata.name" in sentence
    assert "did you mean `resnet50-2`?" in sentence


@pytest.mark.parametrize(
    ("name", "want_nearest"),
    [("ResNet_50", "resnet-50"), ("3d-unet", "e-3d-unet"), ("a" * 70, "a" * 63), ("a-", "a"), ("é", "")],
)
def test_a_name_that_no_service_can_carry_is_refused(name: str, want_nearest: str, document_with: Documents) -> None:
    with pytest.raises(SpecProblemsError) as caught:
        load_documents(document_with("").replace("resnet50", name), where="engine.yaml")

    (problem,) = caught.value.problems
    assert (problem.path, problem.nearest) == ("metadata.name", want_nearest)


def test_an_object_of_a_cluster_is_read_past_fields_that_this_release_does_not_know(design_example: str) -> None:
    (wanted,) = load_documents(design_example, where="engine.yaml")
    document = wanted.to_document()
    document["metadata"] |= {"uid": "u", "managedFields": [{"manager": "kubectl"}], "creationTimestamp": None}
    document["spec"]["targets"][0]["gpu"]["newer"] = 1
    document["spec"]["precison"] = "fp16"
    document["spec"]["rollout"] = None
    document["status"] = {"conditions": []}

    engine, problems = read_object(document)

    assert engine is not None
    assert engine.spec == wanted.spec
    assert engine.metadata.uid == "u"
    assert {problem.path: problem.nearest for problem in problems} == {
        "spec.targets[0].gpu.newer": "",
        "spec.precison": "precision",
    }


@pytest.mark.parametrize(
    ("document", "want_path"),
    [
        ({}, "apiVersion"),
        ({"apiVersion": "enginesmith.io/v1alpha1", "kind": "InferenceEngine"}, "metadata"),
        (
            {
                "apiVersion": "enginesmith.io/v1alpha1",
                "kind": "InferenceEngine",
                "metadata": {"name": "a"},
                "spec": {"model": {"uri": "a"}, "unknown": 1, "build": {"optimizationLevel": 9}},
            },
            "spec.build.optimizationLevel",
        ),
        ({"apiVersion": {1, 2}}, ""),
        ({"apiVersion": float("nan")}, "apiVersion"),
    ],
)
def test_an_object_that_cannot_be_used_is_problems_and_no_engine(document: dict[str, object], want_path: str) -> None:
    engine, problems = read_object(document)

    assert engine is None
    assert want_path in {problem.path for problem in problems}


def test_python_code_meets_the_same_checks() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        InferenceEngine.model_validate({"metadata": {"name": "a"}, "spec": {"model": {"uri": "a"}, "targets": []}})


def test_the_error_is_what_the_command_line_prints(document_with: Documents) -> None:
    with pytest.raises(SpecError) as caught:
        load_documents(document_with("build: {epoch: -1}\nprecision: x"), where="engine.yaml")

    assert str(caught.value).splitlines() == [
        "engine.yaml: 2 problems:",
        "  engine.yaml:5: spec.build.epoch: found -1: expected at least 0; the nearest valid value is 0",
        '  engine.yaml:6: spec.precision: found "x": expected one of fp32, tf32, fp16, bf16, int8, fp8',
    ]
