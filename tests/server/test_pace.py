"""Which runs an event loop does itself."""

import pytest

from enginesmith_runtime.server.pace import Pace

_QUICK, _WAITED, _SLOW = 50_000, 8_000_000, 50_000_000


@pytest.mark.parametrize(
    ("runs", "want"),
    [
        ([_QUICK] * 15, False),  # too few to tell
        ([_QUICK] * 16, True),
        ([_WAITED] * 30 + [_QUICK], True),  # the others waited for a processor
        ([_WAITED] * 100, False),
        ([_SLOW] + [_QUICK] * 20, False),  # the time depends on the values
        ([_SLOW] + [_QUICK] * 63, True),  # once, long ago
    ],
)
def test_only_what_is_short_again_and_again_is_quick(runs: list[int], *, want: bool) -> None:
    pace = Pace()
    for ns in runs:
        pace.note(ns)
    assert pace.is_quick is want


@pytest.mark.parametrize(
    ("runs", "want"),
    [([1_900_000] * 15, False), ([1_900_000] * 16, True), ([2_100_000] * 100, False), ([_SLOW] + [_QUICK] * 20, False)],
)
def test_what_takes_two_milliseconds_at_most_is_short(runs: list[int], *, want: bool) -> None:
    pace = Pace()
    for ns in runs:
        pace.note(ns)
    assert pace.is_short is want


@pytest.mark.parametrize(
    ("alone", "joined", "want"),
    [
        ([], [], None),
        ([100], [], True),
        ([], [100], None),  # nothing to compare it with
        ([100], [95], False),
        ([100], [95, 70], True),  # the other one waited for a processor
        ([200, 100], [95], False),
    ],
)
def test_joining_pays_where_a_request_takes_clearly_less_time_with_others(
    alone: list[int], joined: list[int], *, want: bool | None
) -> None:
    pace = Pace()
    for ns in alone:
        pace.note(ns)
    for ns in joined:
        pace.note_joined(ns)
    assert pace.joining_pays is want
