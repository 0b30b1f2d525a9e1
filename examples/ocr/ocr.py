"""Reads the text in a picture with three models that one server serves: det, cls and rec.

    enginesmith up examples/ocr/engine.yaml
    python examples/ocr/ocr.py examples/ocr/image.png --expect examples/ocr/expected.txt

Everything but the three networks happens here, in numpy and Pillow: detect.py, read.py; client.py speaks to the server.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

import grpc
from client import Client
from detect import boxes_from_probabilities, detector_input
from PIL import Image
from read import classifier_input, is_upside_down, recogniser_input, text_from_probabilities

__all__ = ["main", "read_page"]

_CHARACTERS: Final = Path(__file__).resolve().with_name("characters.txt")
_MODELS: Final = ("det", "cls", "rec")
# The classifier's profile ends here.
_MOST_LINES_AT_ONCE: Final = 16


def main() -> int:
    """Print the picture's text; returns 1 where it is not what `--expect` says, 2 where the server cannot answer."""
    arguments = _arguments()
    try:
        page = Image.open(arguments.image)
    except OSError as error:
        print(f"ocr: {arguments.image}: {error.strerror or error}", file=sys.stderr)
        return 2
    with Client(arguments.address) as client, page:
        try:
            before = client.inference_counts()
            lines = read_page(client, page.convert("RGB"))
            after = client.inference_counts()
        except grpc.RpcError as error:
            print(f"ocr: {arguments.address}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 2
    print("\n".join(lines))
    calls = {model: after.get(model, 0) - before.get(model, 0) for model in _MODELS}
    print("inferences:", ", ".join(f"{model} {count}" for model, count in calls.items()), file=sys.stderr)
    complaints = [f"{model} was not called" for model, count in calls.items() if count <= 0]
    if arguments.expect:
        complaints += _misses(lines, arguments.expect.read_text(encoding="utf-8").splitlines())
    for complaint in complaints:
        print(f"ocr: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def read_page(client: Client, page: Image.Image) -> list[str]:
    """Return the text of a page, one string a line, top to bottom."""
    probabilities = client.infer("det", detector_input(page))
    lines = [page.crop(box) for box in boxes_from_probabilities(probabilities[0, 0], page.size)]
    upright = [line for start in range(0, len(lines), _MOST_LINES_AT_ONCE) for line in _upright(client, lines, start)]
    characters = _CHARACTERS.read_text(encoding="utf-8").split("\n")[:-1]
    return [text_from_probabilities(client.infer("rec", recogniser_input(line))[0], characters) for line in upright]


def _upright(client: Client, lines: list[Image.Image], start: int) -> list[Image.Image]:
    batch = lines[start : start + _MOST_LINES_AT_ONCE]
    turned = is_upside_down(client.infer("cls", classifier_input(batch)))
    return [line.rotate(180) if upside_down else line for line, upside_down in zip(batch, turned, strict=True)]


def _misses(found: list[str], expected: list[str]) -> list[str]:
    if len(found) != len(expected):
        return [f"{len(found)} lines found, {len(expected)} expected"]
    pairs = enumerate(zip(found, expected, strict=True), start=1)
    return [f"line {number}: found {got!r}, expected {want!r}" for number, (got, want) in pairs if got != want]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Read the text in a picture.")
    parser.add_argument("image", type=Path, help="a picture, PNG or JPEG")
    parser.add_argument("--address", default="127.0.0.1:8001", help="HOST:PORT of the server (default %(default)s)")
    parser.add_argument("--expect", type=Path, help="a file with the text that must be found, line by line")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
