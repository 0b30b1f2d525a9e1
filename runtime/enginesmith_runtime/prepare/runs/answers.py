"""Checks the reference runs for random results and NaN before an engine is compared with them."""

from collections.abc import Mapping, Sequence
from typing import Final

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.prepare.runs.exercise import Exercised

__all__ = ["check_answers"]

_NO_REPEATS: Final = "give every index once (verification.inputs), or export ScatterND with a reduction"


def check_answers(
    model: str, exercised: Exercised, random: Mapping[str, str], unordered: Sequence[str] = ()
) -> tuple[str, ...]:
    """Refuse a model with outputs that no engine can be compared with. Return warnings, one line each.

    Args:
        model: Name of the model's file.
        exercised: Results of the runs.
        random: Random nodes as text, each with its fix.
        unordered: Nodes with results that depend on the order of threads if indices repeat, as text.

    Raises:
        enginesmith_contract.errors.ModelError: `AnswersVary` if two runs with the same inputs gave different outputs,
            `AnswersAreNaN` if all values of an output were NaN in every run.
    """
    if exercised.varied:
        raise _varying(model, exercised.varied, random, unordered)
    always = _always_nan(exercised)
    if always:
        raise ModelError(
            f"the model itself answers NaN throughout in {', '.join(always)}",
            where=model,
            why="every value of every reference run is NaN, so no engine can be compared with it",
            remedy=(
                "give verification.inputs values that the model expects, or correct the model (0 divided by 0, the"
                " root or logarithm of a negative number, infinity less infinity)"
            ),
            reason="AnswersAreNaN",
        )
    return (*_random_warnings(exercised, random), *_nan_warnings(exercised))


def _varying(model: str, output: str, random: Mapping[str, str], unordered: Sequence[str]) -> ModelError:
    fixes = dict.fromkeys(random.values())
    causes = [f"for these are random: {', '.join(random)}"] if random else []
    if unordered:
        causes.append(f"for where indices repeat, which update stays is open: {', '.join(unordered)}")
        fixes[_NO_REPEATS] = None
    return ModelError(
        "the model answers differently each time",
        where=model,
        why=(
            f"output {output} differed between two runs with the same inputs, "
            + ("; ".join(causes) or "although no operator is known to be random")
            + "; no two answers agree, so no engine can be verified"
        ),
        remedy="; ".join(fixes) or "export it without random operators",
        reason="AnswersVary",
    )


def _always_nan(exercised: Exercised) -> tuple[str, ...]:
    runs = list(exercised.nan.values())
    return tuple(name for name in runs[0] if all(name in run for run in runs)) if runs else ()


def _random_warnings(exercised: Exercised, random: Mapping[str, str]) -> tuple[str, ...]:
    if not random:
        return ()
    seen = "no run was repeated" if exercised.varied is None else "repeated runs gave the same answers"
    return (f"random by itself: {', '.join(random)}; {seen} with these inputs, so the model is taken",)


def _nan_warnings(exercised: Exercised) -> tuple[str, ...]:
    return tuple(
        f"profile {point.profile!r}, {point.point}: output {name} is NaN throughout in the model itself"
        for point in exercised.stored
        for name in exercised.nan.get(point.run, ())
    )
