"""Models to fetch and the servers that they are fetched from."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typing_extensions import override

WEIGHTS_SIDE = 256


def _good_manners() -> SimpleNamespace:
    return SimpleNamespace(
        url="",
        ranges=True,  # whether it knows Range
        tagged=True,  # whether it sends an ETag
        broken_after=[],  # counts of body bytes after which successive responses break; then they are whole
        statuses=[],  # of successive responses before any file is given
        shortened=False,  # half of every body, under the whole length
        bodies={},  # answers instead of files, by path, with or without query
        requests=[],  # (path, Range header) of every request
        authorizations=[],
        cookies=[],
    )


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, manners: SimpleNamespace, *arguments: object) -> None:
        self._served_folder = folder
        self._manners = manners
        super().__init__(*arguments)  # type: ignore[arg-type]  # socketserver hands them on

    def do_GET(self) -> None:
        manners = self._manners
        whole = self.path.lstrip("/")
        path = whole if whole in manners.bodies else unquote(whole.partition("?")[0])
        manners.requests.append((self.path, self.headers.get("Range")))
        manners.authorizations.append(self.headers.get("Authorization"))
        manners.cookies.append(self.headers.get("Cookie"))
        file = self._served_folder / path
        if manners.statuses:
            self.send_error(manners.statuses.pop(0))
            return
        if path not in manners.bodies and not file.is_file():
            self.send_error(404)
            return
        body = manners.bodies[path] if path in manners.bodies else file.read_bytes()
        self._send(body, f'"{sha256(body).hexdigest()}"')

    def _send(self, body: bytes, tag: str) -> None:
        manners = self._manners
        start = 0
        wanted = self.headers.get("Range")
        if manners.ranges and wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if manners.tagged:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if manners.shortened:
            rest = rest[: len(rest) // 2]
        if manners.broken_after:
            rest = rest[: manners.broken_after.pop(0)]
        self.wfile.write(rest)
        self.close_connection = True

    @override
    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def web(served: Path) -> Iterator[SimpleNamespace]:
    """A web server on 127.0.0.1 that gives the files of `served`, with manners that a test sets."""
    manners = _good_manners()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served, manners))
    manners.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    yield manners
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """Writes y = x @ w + b; `weights` names a file beside the model for them."""

    def write(path: Path, *, weights: str = "") -> Path:
        if weights:
            onnx.save(_affine(), path, save_as_external_data=True, location=weights, size_threshold=0)
        else:
            onnx.save(_affine(), path)
        return path

    return write


@pytest.fixture
def write_naming() -> Callable[..., Path]:
    """Writes a model whose tensor w is said to lie in a file, which is not written."""

    def write(path: Path, location: str, *, offset: str = "0", length: str = "16") -> Path:
        document = _affine()
        tensor = document.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": length}.items():
            if value:
                tensor.external_data.add(key=key, value=value)
        path.write_bytes(document.SerializeToString())
        return path

    return write


def _affine() -> onnx.ModelProto:
    values = np.random.default_rng(7).standard_normal((WEIGHTS_SIDE, WEIGHTS_SIDE), dtype=np.float32)
    w, b = numpy_helper.from_array(values, "w"), numpy_helper.from_array(values[0], "b")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    shape: list[str | int] = ["batch", WEIGHTS_SIDE]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph(nodes, "affine", [x], [y], [w, b])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
