"""From a document to an answer and back to nothing, as a user does it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from tests.cli.conftest import CommandLine

pytestmark = pytest.mark.slow


def test_up_builds_once_serves_and_stops_cleanly(command_line: CommandLine) -> None:
    with command_line.up() as server:
        said = server.log.read_text()
        answer = command_line.run("infer", "cls", "--address", server.address)
        assert server.stop() == 0
    assert server.models == ("cls",)
    assert "cls: target cpu serves engine" in said
    assert "cls: target gpu was not chosen: NoGpu" in said
    assert answer.returncode == 0, answer.stderr
    assert "input    x  FP32 [2, 3, 48, 192]" in answer.stdout
    assert "target: cpu" in answer.stdout

    with command_line.up() as again:
        second = again.log.read_text()
    stages = [json.loads(line)["stage"] for line in second.splitlines() if line.startswith("{")]
    assert "build" not in stages
    assert "exercise" not in stages
    assert "from the store" in second


def test_build_then_serve_then_inspect_speak_of_the_same_engine(command_line: CommandLine) -> None:
    missing = command_line.run("serve", "engine.yaml", "--address", "127.0.0.1:0", "--metrics-address", "none")
    built = command_line.run("build", "engine.yaml", "--output", "json")
    assert missing.returncode == 11
    assert "enginesmith build engine.yaml" in missing.stderr
    assert built.returncode == 0, built.stderr
    (engine,) = json.loads(built.stdout)
    assert engine["verification"]["status"] == "passed"

    shown = command_line.run("inspect", engine["engineKey"][:8])
    listed = command_line.run("inspect")
    assert engine["engineKey"] in shown.stdout
    assert "runs on        this machine" in shown.stdout
    assert engine["engineKey"][:20] in listed.stdout

    server = command_line.start(
        "serve", f"renamed={engine['engineKey'][:12]}", "--address", "127.0.0.1:0", "--metrics-address", "none"
    )
    assert server.stdout is not None
    assert json.loads(server.stdout.readline())["models"] == ["renamed"]
    server.send_signal(signal.SIGTERM)
    assert server.wait(120) == 0


def test_an_engine_that_was_tampered_with_is_not_served(command_line: CommandLine) -> None:
    built = command_line.run("build", "engine.yaml", "--output", "json")
    (engine,) = json.loads(built.stdout)
    blob = command_line.home / "store" / "blobs" / "sha256" / engine["engineDigest"]
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    served = command_line.run("serve", "engine.yaml", "--address", "127.0.0.1:0", "--metrics-address", "none")
    assert served.returncode in {18, 30}
    assert engine["engineDigest"][:12] in served.stderr
    assert "Traceback" not in served.stderr


def test_ctrl_c_in_the_middle_of_the_work_leaves_nothing_behind(command_line: CommandLine) -> None:
    # Again where the build was quicker than the signal: on a busy machine this process may be the slower one.
    for _ in range(10):
        process = command_line.start("build", "engine.yaml")
        assert process.stderr is not None
        for line in process.stderr:
            if '"exercise"' in line or '"build"' in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
        if process.returncode:
            break
        shutil.rmtree(command_line.home)
    assert process.returncode == 130, err
    work = command_line.home / "work"
    assert list(work.iterdir() if work.exists() else []) == []
    assert list((command_line.home / "store").rglob("keys/*.json")) == []


def test_a_port_that_is_taken_is_said_before_anything_is_built(command_line: CommandLine) -> None:
    with command_line.up() as server:
        second = command_line.run("up", "engine.yaml", "--address", server.address)
    assert second.returncode != 0
    assert "cannot listen" in second.stderr
    assert server.address in second.stderr


def test_two_builds_of_one_key_at_once_give_one_engine(command_line: CommandLine) -> None:
    first, second = (command_line.start("build", "engine.yaml", "--output", "json") for _ in range(2))
    (first_out, first_err), (second_out, second_err) = (one.communicate(timeout=600) for one in (first, second))
    assert (first.returncode, second.returncode) == (0, 0), first_err + second_err
    assert json.loads(first_out)[0]["engineDigest"] == json.loads(second_out)[0]["engineDigest"]
    begun = [line for line in (first_err + second_err).splitlines() if '"build"' in line and '"begin"' in line]
    assert len(begun) == 1


def test_infer_without_a_server_says_how_to_start_one(command_line: CommandLine) -> None:
    answer = command_line.run("infer", "cls", "--address", "127.0.0.1:1")
    assert answer.returncode == 33
    assert "enginesmith up" in answer.stderr


_CHANGES = {
    "no-such-file": ("cls.onnx", "missing.onnx", 12, "missing.onnx"),
    "unknown-field": ("  serving: {drainDelay: 100ms}", "  servng: {}", 10, "did you mean"),
    "min-over-opt": ("min: [1, 3, 48, 192], opt: [2,", "min: [3, 3, 48, 192], opt: [2,", 10, "spec.profiles[0]"),
    "no-input-of-that-name": ("        x: {", "        y: {", 10, "y"),
    "rank": (
        "[1, 3, 48, 192], opt: [2, 3, 48, 192], max: [4, 3, 48, 192]",
        "[1, 3, 48], opt: [1, 3, 48], max: [1, 3, 48]",
        10,
        "x",
    ),
    "no-target": ("    - {name: cpu, backend: onnxruntime, standby: true}\n", "", 11, "NVML"),
}


@pytest.mark.parametrize("case", _CHANGES)
def test_a_wrong_document_ends_with_its_code_and_a_sentence(command_line: CommandLine, case: str) -> None:
    old, new, want_code, want_fragment = _CHANGES[case]
    path = command_line.folder / "engine.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    answer = command_line.run("build", "engine.yaml")
    assert answer.returncode == want_code, answer.stderr
    assert want_fragment in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list((command_line.home / "store").rglob("keys/*.json")) == []


def test_an_open_model_without_profiles_is_given_one_that_works_when_pasted(command_line: CommandLine) -> None:
    path = command_line.folder / "engine.yaml"
    text = path.read_text()
    head, _, rest = text.partition("  profiles:\n")
    tail = rest[rest.index("  serving:") :]
    path.write_text(head + tail)
    refused = command_line.run("build", "engine.yaml")
    assert refused.returncode == 10, refused.stderr
    assert "profiles:" in refused.stderr
    suggested = command_line.run("inspect", "cls.onnx").stdout
    path.write_text(head + suggested[suggested.index("  profiles:") :].rstrip() + "\n" + tail)
    # cls takes 48x192 alone, which no name of its dimensions tells.
    built = command_line.run("build", "engine.yaml")
    assert built.returncode == 0, built.stderr


def test_a_target_that_lacks_the_values_of_a_size_is_named_with_an_entry_that_works_when_pasted(
    command_line: CommandLine,
) -> None:
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=1)],
        "top",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", "K"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (command_line.folder / "top.onnx").write_bytes(model.SerializeToString())
    path = command_line.folder / "top.yaml"
    text = (
        "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: top}\nspec:\n"
        "  model: {uri: top.onnx}\n  profiles:\n    - name: default\n      inputs:\n"
        "        x: {min: [1, 10], opt: [2, 10], max: [4, 10]}\nENTRY"
        "  targets:\n    - {name: cpu, backend: onnxruntime}\n"
        "    - {name: rtx, backend: tensorrt-rtx, gpu: {product: NVIDIA-L40S}}\n"
    )
    path.write_text(text.replace("ENTRY", ""))
    refused = command_line.run("build", "top.yaml")
    assert refused.returncode == 11, refused.stderr
    assert "top/cpu" in refused.stdout
    entry = "k: {" + refused.stderr.rpartition(" k: {")[2].strip()
    path.write_text(text.replace("ENTRY", f"        {entry}\n"))
    built = command_line.run("build", "top.yaml")
    assert built.returncode == 0, built.stderr
    assert "top/rtx" in built.stdout


def test_a_killed_build_is_done_again_and_leaves_no_half_engine(command_line: CommandLine) -> None:
    process = command_line.start("build", "engine.yaml")
    time.sleep(2)
    process.kill()
    process.wait(120)
    for pointer in (command_line.home / "store").rglob("keys/*.json"):
        assert (
            command_line.home / "store" / "blobs" / "sha256" / json.loads(pointer.read_text())["engineDigest"]
        ).exists()
    assert command_line.run("build", "engine.yaml").returncode == 0


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from enginesmith_cli.main import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'pydantic', 'onnx', 'onnxruntime', 'grpc', 'yaml') if m in sys.modules])\n"
    )
    for word in ("--help", "--version"):
        run = subprocess.run(
            [sys.executable, "-c", program, word], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert run.stdout.splitlines()[-1] == "[]", run.stdout
