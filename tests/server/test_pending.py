"""What a call's thread waits for."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from enginesmith_runtime.server.transport.interface import Answer
from enginesmith_runtime.server.transport.pending import Pending


class _Request:
    """What the work knows, as large as a client made it."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending

    def answer(self) -> None:
        self.pending.reply(Answer(b""))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_request_that_was_handed_over_goes_with_its_answer_and_not_with_the_collector() -> None:
    pending = Pending()
    request = _Request(pending)
    gone = weakref.ref(request)
    pending.run(request.answer)
    del request
    assert pending.wait() == Answer(b"")
    assert gone() is None
