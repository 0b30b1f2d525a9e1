"""A disk that fills up under a child process: the sentence says so, whatever library could not write."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.preparation import Preparation

pytestmark = pytest.mark.slow

_PROGRAM = """
import sys
from pathlib import Path
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.progress import SilentReporter
request = BuildRequest.from_json(Path(sys.argv[1]).read_bytes())
try:
    build(request, Path(sys.argv[2]), SilentReporter())
except EnginesmithError as error:
    print(error.reason, int(error.exit_code), error.retry)
    print(error)
print(sorted(path.name for path in Path(sys.argv[2]).iterdir()))
"""


def _model(folder: Path) -> Path:
    """Return a model whose engine has 4 MB, which the optimised file holds once more."""
    weights = numpy_helper.from_array(np.random.default_rng(0).random((4, 250_000), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("ReduceMean", ["product"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [weights],
    )
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("mebibytes", [2, 6])
def test_a_builder_that_cannot_write_its_engine_says_that_the_disk_is_full(
    tmp_path: Path,
    prepare_model: Callable[..., Preparation],
    make_request: Callable[..., BuildRequest],
    mebibytes: int,
) -> None:
    request = make_request(prepare_model(_model(tmp_path)))
    (tmp_path / "request.json").write_bytes(request.to_json())
    disk = tmp_path / "disk"
    disk.mkdir()
    # The prepared model is linked from the store where it can be, so that only the engine needs the room.
    mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs "$1" && exec "$0" -c "$2" "$3" "$1"'
    run = subprocess.run(
        [
            *("unshare", "--map-root-user", "--mount", "sh", "-c", mount),
            *(sys.executable, str(disk), _PROGRAM, str(tmp_path / "request.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    first, sentence, left = run.stdout.splitlines()
    assert first == "DiskFull 18 True", sentence
    assert "the disk is full" in sentence
    assert left == "[]"
