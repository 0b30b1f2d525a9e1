"""Regions of shared memory by name: one each, closed once, and never under a request."""

import pytest
from typing_extensions import override

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.shared_memory.region import Region
from enginesmith_runtime.server.shared_memory.region_table import RegionTable


class _CountedRegion(Region):
    kind = "test"

    def __init__(self, name: str) -> None:
        super().__init__(name, 8)
        self.closed = 0

    @override
    def close(self) -> None:
        self.closed += 1


def test_a_region_is_closed_once_and_only_after_its_last_request() -> None:
    table = RegionTable()
    table.register("r", lambda: _CountedRegion("r"))
    region = table.take("r")
    assert isinstance(region, _CountedRegion)
    assert table.take("r") is region
    table.unregister(_CountedRegion, "")
    with pytest.raises(ProtocolError) as caught:
        table.take("r")
    assert caught.value.code is Code.INVALID_ARGUMENT
    # The name is free at once, and the new region is another one.
    table.register("r", lambda: _CountedRegion("r"))
    table.give_back(region)
    assert region.closed == 0
    table.give_back(region)
    assert region.closed == 1
    (other,) = table.find(_CountedRegion, "r")
    assert (other is region, other.closed) == (False, 0)
    table.close()
    assert (region.closed, other.closed) == (1, 1)


def test_one_of_two_registrations_of_a_name_is_refused_and_closed() -> None:
    table = RegionTable()
    late = _CountedRegion("r")

    def open_late() -> Region:
        table.register("r", lambda: _CountedRegion("r"))
        return late

    with pytest.raises(ProtocolError) as caught:
        table.register("r", open_late)
    assert caught.value.code is Code.ALREADY_EXISTS
    assert late.closed == 1
