"""Reads a page of text through three Services, each with an engine of its own."""

import time
from typing import Final

from benchmarks.gpu_cluster.asking import first_answer
from benchmarks.gpu_cluster.documents import SHAPES
from benchmarks.gpu_cluster.workplace import ROOT, Workplace
from client import Client
from detect import Float32Array
from ocr import read_page
from PIL import Image
from tests.cluster.inference import service_address
from typing_extensions import override

__all__ = ["run"]

_PAGE: Final = ROOT / "examples" / "ocr"


class _Services(Client):
    """A connection for each model, to its Service."""

    def __init__(self, clients: dict[str, Client]) -> None:
        self._clients = clients

    @override
    def infer(self, model: str, tensor: Float32Array) -> Float32Array:
        """Ask the model's own Service."""
        return self._clients[model].infer(model, tensor)


def run(work: Workplace) -> None:
    """Read the example's page and compare it with its text."""
    for model in ("det", "cls", "rec"):
        first_answer(work, model, SHAPES[model][0], seconds=30)
    clients = {model: Client(service_address(work.tenant(model), model)) for model in ("det", "cls", "rec")}
    with Image.open(_PAGE / "image.png") as page:
        picture = page.convert("RGB")
    read_page(_Services(clients), picture)
    begun = time.monotonic()
    lines = read_page(_Services(clients), picture)
    seconds = round(time.monotonic() - begun, 3)
    want = (_PAGE / "expected.txt").read_text(encoding="utf-8").splitlines()
    wrong = [[got, wanted] for got, wanted in zip(lines, want, strict=False) if got != wanted]
    is_right = lines == want
    work.note("reading", "page", lines=len(lines), expected=len(want), isRight=is_right, wrong=wrong, seconds=seconds)
