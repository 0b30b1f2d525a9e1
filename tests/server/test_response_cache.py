"""The bound of the response cache, and what makes room."""

import numpy as np

from enginesmith_runtime.server.response_cache import ResponseCache

_KIB = 1 << 10


def _outputs(value: int, size: int = _KIB) -> dict[str, np.ndarray]:
    return {"y": np.full((size,), value, np.uint8)}


def test_the_least_recently_used_outputs_make_room() -> None:
    cache = ResponseCache(5 * _KIB)
    for number in range(3):
        cache.keep(bytes([number]), _outputs(number))
    assert cache.find(b"\x00") is not None
    cache.keep(b"\x03", _outputs(3))
    assert [cache.find(bytes([number])) is not None for number in range(4)] == [True, False, True, True]


def test_what_is_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = ResponseCache(4 * _KIB)
    cache.keep(b"a", _outputs(1))
    cache.keep(b"b", _outputs(2, 4 * _KIB))
    cache.keep(b"c", {"t": np.array([b"x"] * 100, np.object_)})  # each element is an object of its own
    assert cache.find(b"b") is None
    assert cache.find(b"c") is None
    assert cache.find(b"a") is not None


def test_outputs_are_copied_and_the_first_ones_stay() -> None:
    cache = ResponseCache(64 * _KIB)
    outputs = _outputs(1)
    cache.keep(b"a", outputs)
    outputs["y"][:] = 9
    cache.keep(b"a", _outputs(2))
    found = cache.find(b"a")
    assert found is not None
    assert set(found["y"].tolist()) == {1}
