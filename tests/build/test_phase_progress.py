"""Nested phases of a native builder become one fraction that never goes back."""

import random
import threading

from enginesmith_runtime.build.phases import PhaseProgress
from enginesmith_runtime.progress import Fact


class _Fractions:
    """A Reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []

    def begin(self, stage: str, detail: str = "") -> None:
        """Nothing is remembered of it."""

    def advance(self, fraction: float, detail: str = "") -> None:
        self.seen.append((round(fraction, 6), detail))

    def end(self, **facts: Fact) -> None:
        """Nothing is remembered of it."""


class _Clock:
    """A clock that moves a second with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_step_s_children_fill_the_step_that_they_are_in() -> None:
    reporter = _Fractions()
    progress = PhaseProgress(reporter, clock=_Clock())
    progress.phase("build", steps=2)
    progress.step("build", 0)
    progress.phase("tactics", steps=4, parent="build")
    progress.step("tactics", 1)
    progress.phase("unknown parent", steps=2, parent="never begun")
    progress.finish("tactics")
    progress.step("build", 1)
    assert [fraction for fraction, _ in reporter.seen] == [0.0, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0]


def test_reports_come_at_most_ten_times_a_second() -> None:
    reporter = _Fractions()
    now = 0.0
    progress = PhaseProgress(reporter, clock=lambda: now)
    progress.phase("build", steps=1000)
    for step in range(500):
        progress.step("build", step)
    now = 0.2
    progress.step("build", 500)
    assert [fraction for fraction, _ in reporter.seen] == [0.0, 0.501]


def test_a_cancelled_build_is_told_to_stop_at_its_next_step() -> None:
    is_cancelled = False
    progress = PhaseProgress(_Fractions(), lambda: is_cancelled)
    progress.phase("build", steps=2)
    assert progress.step("build", 0)
    is_cancelled = True
    assert not progress.step("build", 1)


def test_the_fraction_never_goes_back_whatever_threads_report() -> None:
    reporter = _Fractions()
    progress = PhaseProgress(reporter, clock=_Clock())
    progress.phase("build", steps=3)

    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - an order of calls, no secret
        for number in range(50):
            name = f"{seed}-{number % 5}"
            progress.phase(name, steps=chance.randint(0, 5), parent=chance.choice(("build", None, f"{seed}-0")))
            progress.step(name, chance.randint(0, 9))
            if chance.random() < 0.5:
                progress.finish(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fractions = [fraction for fraction, _ in reporter.seen]
    assert fractions == sorted(fractions)
    assert 0.0 <= fractions[-1] <= 1.0
