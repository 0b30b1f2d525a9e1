"""Wrong documents: every problem is named with its line, its field, what was found and what would do."""

from collections.abc import Callable

import pytest

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.api.problems import SpecProblemsError

Documents = Callable[[str], str]


def _preprocess(fields: str, layout: str = "uint8-nhwc") -> str:
    return f"model: {{uri: m.onnx, preprocess: [{{input: x, from: {layout}, {fields}}}]}}"


# Lines of spec (the first is line 5 of the file), then fragments of the one problem's sentence.
WRONG = [
    ("build: {optimizationLevel: 7}", ["engine.yaml:5", "spec.build.optimizationLevel: found 7", "valid value is 5"]),
    ("build: {optimizationLevel: -1}", ["spec.build.optimizationLevel: found -1", "the nearest valid value is 0"]),
    ('build: {optimizationLevel: "3"}', ['found "3"', "a whole number", "valid value is 3", "without quotes"]),
    (
        "build: {quickStart: true, optimizationLevel: 0}",
        ["spec.build.quickStart", "every engine is built at level 0", "raise optimizationLevel"],
    ),
    (
        "build: {quickStart: true}\ntargets: [{name: cpu, backend: onnxruntime}]",
        ["spec.build.quickStart", "found onnxruntime", "remove quickStart"],
    ),
    (
        "build: {quickStart: true}\ntargets: [{name: rtx, backend: tensorrt-rtx}, {name: cpu, backend: onnxruntime}]",
        ["spec.build.quickStart", "found tensorrt-rtx, onnxruntime"],
    ),
    ("build: {optimizationLevel: 3.4}", ["found 3.4", "a whole number", "the nearest valid value is 3"]),
    ("build: {workspace: 2GB}", ['spec.build.workspace: found "2GB"', "did you mean `2G`?"]),
    ("serving: {maxMessageBytes: 2Gi}", ["spec.serving.maxMessageBytes", "at most 2147483647"]),
    ("serving: {frontEnds: 33}", ["spec.serving.frontEnds: found 33", "valid value is 32"]),
    ("serving: {tls: {}}", ["spec.serving.tls.secretName", "required"]),
    ("serving: {tls: {secretName: Cls_TLS}}", ["spec.serving.tls.secretName", "did you mean `cls-tls`?"]),
    ("serving: {tls: {secretName: a, clientCaSecretName: b}}", ["did you mean `clientCASecretName`"]),
    ("serving: {auth: {tokens: a}}", ["spec.serving.auth.tokens", "unknown field", "tokensSecretName"]),
    ("serving: {clientLimits: {}}", ["spec.serving.clientLimits", "set maxInFlight or requestsPerSecond"]),
    ("serving: {clientLimits: {maxInFlight: 0}}", ["spec.serving.clientLimits.maxInFlight", "valid value is 1"]),
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
    ("precision: {default: fp16, calibration: s3://b/c/}", ["spec.precision.calibration", "has no effect with fp16"]),
    ("precision: {default: fp16, autoKeep: {budget: 0.1}}", ["spec.precision.autoKeep", "true or false with fp16"]),
    ("precision: {default: fp32, autoKeep: true}", ["spec.precision.autoKeep", "has no effect with fp32"]),
    ("precision: {keep: [Conv]}", ["spec.precision.keep", "has no effect with fp32"]),
    (
        "precision: {default: tf32, keep: [Conv]}",
        ["spec.precision.keep", "has no effect with tf32", "remove the field"],
    ),
    ("precision: {default: bf16, autoKeep: true}", ["spec.precision.autoKeep", "has no effect with bf16"]),
    ("precision: {default: fp16, autoKeep: much}", ["spec.precision.autoKeep", "true, false or a mapping"]),
    (
        "precision: {default: int8, calibration: {source: s3://b/c/, percentile: 99}}",
        ["spec.precision.calibration.percentile", "no effect with method mse", "method: percentile"],
    ),
    (
        "precision: {default: int8, calibration: {source: s3://b/c/, maxSamples: 8}}",
        ["spec.precision.calibration.maxSamples", "found 8", "16"],
    ),
    (
        "precision: {default: fp16, fallback: fp32}",
        ["spec.precision.fallback", "expected a list"],
    ),
    (
        "precision: {default: fp16, fallback: [fp16]}",
        ["spec.precision.fallback[0]", "fp16 is tried before this entry", "remove the entry"],
    ),
    (
        "precision: {default: fp16, fallback: [bf16, fp32, bf16]}",
        ["spec.precision.fallback[2]", "bf16 is tried before this entry"],
    ),
    (
        "precision: {default: fp32, fallback: [int8]}",
        ["spec.precision.fallback[0]", "int8 has fewer bits than fp32", "such as fp16 and then fp32"],
    ),
    (
        "precision: {default: fp16, fallback: [fp32, tf32]}",
        ["spec.precision.fallback[1]", "tf32 has fewer bits than fp32"],
    ),
    ("precision: {default: fp16, fallback: [fp61]}", ["spec.precision.fallback[0]", "did you mean `fp16`?"]),
    (
        "precision: {default: fp16, fallback: [bf16]}\ntargets: [{name: cpu, backend: onnxruntime}]",
        ["spec.precision.fallback[0]", "no target has a backend that runs bf16"],
    ),
    (
        "serving: {batching: {enabled: false, maxQueueDelay: 2ms}}",
        ["spec.serving.batching.maxQueueDelay", "no effect if enabled is false", "remove one of the two"],
    ),
    (
        "serving: {batching: {preferredBatchSizes: [4, 32], maxBatchSize: 16}}",
        ["spec.serving.batching.preferredBatchSizes[1]", "larger than maxBatchSize 16"],
    ),
    ("serving: {batching: {preferedBatchSizes: [4]}}", ["unknown field", "did you mean `preferredBatchSizes`?"]),
    ("serving: {batching: {maxBatchSize: 0}}", ["spec.serving.batching.maxBatchSize: found 0", "valid value is 1"]),
    ("serving: {queue: {defaultPriorityLevel: 1}}", ["queue.defaultPriorityLevel", "needs priorityLevels"]),
    ("serving: {queue: {priorityLevels: 2, defaultPriorityLevel: 3}}", ["there are 2 levels"]),
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
    ("verification: {agreement: 1.5}", ["spec.verification.agreement: found 1.5", "valid value is 1"]),
    ("verification: {outputs: {y: {}}}", ["outputs.y", "expected limit, mismatches, agreement or decode"]),
    ("verification: {outputs: {y: {decode: argmx}}}", ["outputs.y.decode", "did you mean `argmax`?"]),
    ("verification: {outputs: {y: {axis: 1}}}", ["outputs.y", "axis needs decode: argmax"]),
    ("verification: {outputs: {y: {decode: ids, threshold: 0.3}}}", ["outputs.y", "threshold needs decode: threshold"]),
    ("verification: {agreement: 0.9}", ["spec.verification.agreement", "no effect without calibration data"]),
    ("verification: {outputs: {y: {agreement: 0.9}}}", ["outputs.y.agreement", "set precision.calibration"]),
    ("verification: {outputs: {y: {decode: ids}}}", ["outputs.y.decode", "no effect without calibration data"]),
    ("model: {uri: s4://b/m.onnx}", ["engine.yaml:5", "spec.model.uri", "did you mean `s3://b/m.onnx`?"]),
    ("model: {uri: https://me:pw@host/m.onnx}", ["credentials", "did you mean `https://host/m.onnx`?"]),
    ("model: {uri: s3://}", ["spec.model.uri", "empty after the scheme"]),
    ("model: {}", ["spec.model.uri", "required"]),
    ("model: {uri: m.onnx, sha256: 'SHA256:00'}", ["spec.model.sha256", "64 hexadecimal digits"]),
    ("model: {uri: m.onnx, options: {secret_key: x}}", ["spec.model.options.secret_key", "spec.model.secretRef"]),
    ("model: {uri: m.onnx, options: {port: 80}}", ["spec.model.options.port: found 80", 'valid value is "80"']),
    (_preprocess("mean: [0], std: [0]"), ["spec.model.preprocess[0].std[0]: found 0", "more than 0"]),
    (_preprocess("mean: [0, 0], std: [1]"), ["spec.model.preprocess[0].std", "one for each channel"]),
    (_preprocess("mean: [], std: [1]"), ["spec.model.preprocess[0].mean", "at least 1"]),
    (_preprocess("mean: [.inf], std: [1]"), ["spec.model.preprocess[0].mean[0]", "finite"]),
    (_preprocess("mean: [0], std: [1], scale: 0"), ["spec.model.preprocess[0].scale: found 0", "more than 0"]),
    (_preprocess("mean: [0], std: [1], order: bgr"), ["spec.model.preprocess[0].order", "unknown field"]),
    (_preprocess("mean: [0], std: [1]", "float-nhwc"), ["spec.model.preprocess[0].from", "uint8-nhwc"]),
    (_preprocess("std: [1]"), ["spec.model.preprocess[0].mean", "required"]),
    (
        _preprocess("mean: [0], std: [1]}, {input: x, from: uint8-nhwc, mean: [1], std: [1]"),
        ["spec.model.preprocess[1].input", "an earlier entry has the same input", "remove one"],
    ),
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
    (
        "podTemplate: {priorityClassName: system-node-critical}",
        ["spec.podTemplate.priorityClassName", "is for the cluster's own pods", "name another PriorityClass"],
    ),
    ("build: {priorityClassName: system-cluster-critical}", ["spec.build.priorityClassName", "the cluster's own pods"]),
    ("store: {pvc: {claimName: a, subPath: ../b}}", ["spec.store.pvc.subPath", "leaves its folder", "without `..`"]),
    ("store: {s3: {bucket: a, prefix: b/../../c}}", ["spec.store.s3.prefix", "leaves its folder"]),
    ("store: {s3: {bucket: engines/team-b}}", ["spec.store.s3.bucket", "belongs in prefix", "did you mean `engines`?"]),
    ("store: {s3: {bucket: engines, endpoint: '10.0.0.1:9000'}}", ["spec.store.s3.endpoint", "https?://"]),
    ("store: {s3: {bucket: 's3://engines'}}", ["spec.store.s3.bucket", "did you mean `engines`?"]),
    ("store: {oci: {repository: r.example/a/../b}}", ["spec.store.oci.repository", "leaves its folder"]),
    ("podTemplate: {volumes: [{hostPath: {path: /}}]}", ["spec.podTemplate.volumes", "unknown field"]),
    ("podTemplate: {securityContext: {privileged: true}}", ["spec.podTemplate.securityContext", "unknown field"]),
    ("model: {uri: s3://m/m.onnx, secretRef: {name: other/s3}}", ["spec.model.secretRef.name", "Kubernetes object"]),
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
