"""The operator's log: one JSON object a line, with the object that is worked on."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from enginesmith_operator.controller.process.logs import configure_logging, log_about
from enginesmith_operator.controller.shared.cache import Address


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("enginesmith_operator")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def test_lines_of_a_pass_name_its_object_and_others_none(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(verbose=False)
    logger = logging.getLogger("enginesmith_operator.a_module")

    async def make_pass(name: str) -> None:
        with log_about(Address("InferenceEngine", "vision", name)):
            await asyncio.sleep(0)
            logger.warning("%s is late", name)

    async def make_passes() -> None:
        await asyncio.gather(make_pass("one"), make_pass("two"))
        logger.info("over")

    asyncio.run(make_passes())

    one, two, over = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (one["kind"], one["object"], one["message"]) == ("InferenceEngine", "vision/one", "one is late")
    assert two["object"] == "vision/two"
    assert "object" not in over
