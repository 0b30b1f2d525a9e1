"""`enginesmith infer`: one request to a running server, from a file or with random data, and a readable response."""

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import not_writable
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.infer_inputs import Inputs
    from enginesmith_cli.protocol_client import Answer, Array, ModelDescription

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith infer cls
  enginesmith infer cls --shape x=4x3x48x192 --repeat 100
  enginesmith infer det --input x=page.png --output-dir answers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("model", help="name of the model (metadata.name of its document)")
    parser.add_argument("--address", default="127.0.0.1:8001", help="HOST:PORT of the server (default %(default)s)")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]VALUE",
        help="FILE.npy, FILE.npz, a picture, `random` or `random:1x3x224x224` (default: every input is random)",
    )
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=SHAPE", help="1x3x224x224, for `random`")
    parser.add_argument(
        "--repeat", type=_positive, default=1, metavar="N", help="send the request N times and show latencies"
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="save each output there as NAME.npy")
    parser.add_argument(
        "--ca", type=_file, metavar="FILE", help="use TLS; CA certificate for the server's certificate (PEM)"
    )
    parser.add_argument("--cert", type=_file, metavar="FILE", help="certificate of this client (PEM)")
    parser.add_argument("--key", type=_file, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--token-file", type=_file, metavar="FILE", help="bearer token of this client")
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="time limit of a call (default 30)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Send the request, and print the response."""
    from enginesmith_cli.infer_inputs import arrays_from_words, shapes_from_words
    from enginesmith_cli.protocol_client import ProtocolClient

    shapes = shapes_from_words(arguments.shape)
    if arguments.output_dir:
        _make_folder(arguments.output_dir)
    identity = (arguments.cert, arguments.key) if arguments.cert and arguments.key else None
    token = arguments.token_file.decode().strip() if arguments.token_file else None
    with ProtocolClient(
        arguments.address, timeout_seconds=arguments.timeout, ca=arguments.ca, identity=identity, token=token
    ) as client:
        model = client.describe(arguments.model)
        inputs = arrays_from_words(arguments.input, shapes, model.inputs)
        dtypes = {tensor.name: tensor.dtype for tensor in model.inputs}
        seconds = []
        for _ in range(arguments.repeat):
            start = time.perf_counter()
            answer = client.infer(model.name, inputs.arrays, dtypes)
            seconds.append(time.perf_counter() - start)
    _print_answer(model, inputs, answer)
    if arguments.repeat > 1:
        slowest = max(seconds)
        median = statistics.median(seconds)
        print(f"latency  {len(seconds)} calls  median {median * 1e3:.2f} ms  slowest {slowest * 1e3:.2f} ms")
    if arguments.output_dir:
        _save(answer, arguments.output_dir)
    return ExitCode.OK


def _print_answer(model: "ModelDescription", inputs: "Inputs", answer: "Answer") -> None:
    dtypes = {tensor.name: tensor.dtype for tensor in (*model.inputs, *model.outputs)}
    print(f"model    {model.name}  ({model.platform})")
    for name, value in sorted({**model.parameters, **answer.parameters}.items()):
        print(f"         {name}: {value}")
    for name, array in inputs.arrays.items():
        source = inputs.converted_from.get(name)
        print(f"input    {name}  {dtypes[name]} {list(array.shape)}{f'  converted from {source}' if source else ''}")
    for name, array in answer.outputs.items():
        print(f"output   {name}  {dtypes.get(name, array.dtype)} {list(array.shape)}  {_summary(array)}")


def _summary(array: "Array") -> str:
    if array.size == 0:
        return "empty"
    if array.dtype.kind not in "fiub":
        return " ".join(str(item) for item in array.ravel()[:4].tolist())
    values = array.astype("float64")
    return f"min {values.min():.6g}  mean {values.mean():.6g}  max {values.max():.6g}"


def _save(answer: "Answer", folder: Path) -> None:
    import numpy as np

    for name, array in answer.outputs.items():
        # A tensor's name may hold slashes (TensorFlow's do).
        path = folder / f"{name.replace('/', '_')}.npy"
        np.save(path, array, allow_pickle=array.dtype.kind == "O")
        print(f"saved    {path}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(f"--output-dir {folder}", error, "name a folder that can be written") from error


def _file(text: str) -> bytes:
    try:
        return Path(text).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time in seconds")
    return seconds


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
