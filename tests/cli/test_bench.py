"""`enginesmith bench` as a user starts it: real servers and clients, and what it says of bad input."""

import json
import signal
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from onnx import NodeProto, TensorProto, helper
from tests.cli.conftest import CommandLine

from enginesmith_cli.main import main

_TINY = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: tiny}
spec:
  model: {uri: tiny.onnx}
  profiles:
    - inputs:
        x: {min: [1, 4], opt: [2, 4], max: [4, 4]}
  serving: {maxQueued: 64, instances: 1}
  targets:
    - {name: cpu, backend: onnxruntime, backendOptions: {intraOpThreads: "1"}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A folder with a model of one addition, a slow one and their documents, and a home that all of these tests use."""
    folder = tmp_path_factory.mktemp("tiny")
    _save(folder / "tiny.onnx", [helper.make_node("Add", ["x", "x"], ["y"])])
    # Some milliseconds for each request, so that a second one finds the only instance busy.
    _save(
        folder / "slow.onnx",
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Constant", [], ["size"], value_ints=[400, 400]),
            helper.make_node("Expand", ["mean", "size"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
            helper.make_node("Add", ["x", "most"], ["y"]),
        ],
    )
    (folder / "engine.yaml").write_text(_TINY)
    (folder / "no-queue.yaml").write_text(_TINY.replace("tiny", "slow").replace("maxQueued: 64", "maxQueued: 0"))
    (folder / "several.yaml").write_text(f"{_TINY}---\n{_TINY.replace('name: tiny', 'name: other')}")
    return CommandLine(folder)


def _save(path: Path, nodes: list[NodeProto]) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


@pytest.mark.slow
def test_it_measures_real_servers_and_recommends_what_can_be_pasted(tiny: CommandLine) -> None:
    words = ("bench", "engine.yaml", "--vary", "threads", "--duration", "0.2", "--concurrency", "3", "--clients", "2")
    answer = tiny.run(*words, "--plot", "bench.svg", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert (found["model"], found["target"], found["concurrency"]) == ("tiny", "cpu", 3)
    first, *others = found["trials"]
    assert first["settings"] == {"serving": {}, "backendOptions": {}}
    assert {"backendOptions": {"spinning": "false"}, "serving": {}} in [one["settings"] for one in others]
    for trial in found["trials"]:
        assert "failure" not in trial
        assert trial["requestsPerSecond"] > 0
        assert trial["p50Ms"] <= trial["p99Ms"]
        assert trial["refused"] == 0
    assert yaml.safe_load(yaml.safe_dump(found["recommendation"]["document"])) == found["recommendation"]["document"]
    assert ET.parse(tiny.folder / "bench.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own
    stages = [json.loads(line)["stage"] for line in answer.stderr.splitlines() if '"begin"' in line]
    assert "file 1" in stages
    assert "threads 1" in stages
    assert list((tiny.home / "work").iterdir()) == []


@pytest.mark.slow
def test_more_requests_than_the_queue_takes_are_counted_as_refused(tiny: CommandLine) -> None:
    words = ("bench", "no-queue.yaml", "--vary", "batching", "--duration", "0.2", "--concurrency", "32")
    answer = tiny.run(*words)
    assert answer.returncode == 0, answer.stderr
    assert "refused" in answer.stdout
    assert "RESOURCE_EXHAUSTED" in answer.stdout


@pytest.mark.slow
def test_ctrl_c_ends_servers_and_clients(tiny: CommandLine) -> None:
    process = tiny.start("bench", "engine.yaml", "--duration", "60")
    assert process.stderr is not None
    for line in process.stderr:
        if '"file 1"' in line:
            break
    server = _child(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    # The kernel ends it at the latest when the command is gone.
    give_up = time.monotonic() + 300
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < give_up, f"the server {server} still runs"
        time.sleep(0.02)
    assert list((tiny.home / "work").iterdir()) == []


def _child(pid: int) -> int:
    """Return a child of a process, once it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.02)
    return int(found[0])


_WRONG = {
    "no file": (("missing.yaml",), 10, "missing.yaml"),
    "no such document": (("engine.yaml", "--name", "other"), 10, "no single document is named other"),
    "a shape without a name": (("engine.yaml", "--shape", "1x4"), 2, "no input is named"),
    "a picture that cannot be written": (("engine.yaml", "--plot", "nowhere/b.svg"), 18, "nowhere/b.svg"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_bad_input_is_named_before_anything_is_built(
    tiny: CommandLine, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, said = _WRONG[case]
    monkeypatch.chdir(tiny.folder)
    assert main(["bench", *words, "--home", str(tiny.folder / "elsewhere")]) == code
    assert said in capsys.readouterr().err
    assert not (tiny.folder / "elsewhere").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--duration", "0"), "not a time from 0.1 to 3600 seconds"),
        (("--duration", "soon"), "not a time"),
        (("--concurrency", "0"), "from 1 to 4096"),
        (("--vary", "colour"), "not one of instances, threads, batching, frontEnds"),
        (("--plot", "bench.png"), "does not end with .svg"),
        (("--objective", "cost"), "throughput"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "engine.yaml", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_file_with_several_documents_asks_which_one(
    tiny: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.folder)
    assert main(["bench", "several.yaml"]) == 10
    assert "it has tiny, other. Add --name tiny" in capsys.readouterr().err
