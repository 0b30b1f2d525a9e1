"""What a verification found, in lines for a terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from enginesmith_contract.verification import OutputAgreement, OutputDifference, Verification

__all__ = ["alarm_lines", "describe_verification", "summarize_verification"]

_MOST_DECODINGS: Final = 3


def describe_verification(verification: "Verification") -> Iterator[str]:
    """Yield the result, what it was judged on, and one line for each output."""
    yield f"verification   {verification.status.value} {verification.reason}".rstrip()
    if verification.judged_on is not None:
        yield f"               judged on {verification.judged_on}"
    if verification.metric_verdict is not None:
        yield f"               {verification.metric_verdict.sentence()}"
    yield from (f"               {_agreement(one)}" for one in verification.agreements or ())
    yield from (f"               {_difference(verification.metric, one)}" for one in verification.differences)
    yield from (f"               {line}" for line in alarm_lines(verification))
    if verification.first_fall is not None:
        yield f"               SQNR first falls at {verification.first_fall.sentence()}"


def alarm_lines(verification: "Verification") -> tuple[str, ...]:
    """Return one line for each measure that looks wrong."""
    return tuple(f"alarm: {alarm}" for alarm in verification.alarms or ())


def summarize_verification(verification: "Verification") -> str:
    """Return the largest differences, the smallest agreement and the inferred decodings in one line."""
    share = max((one.mismatches for one in verification.differences if one.mismatches is not None), default=None)
    least = verification.least_agreement
    inferred = [one for one in verification.agreements or () if one.inferred is not None]
    parts = (
        "" if least is None else f"smallest agreement {least:.3g} on {verification.judged_on}",
        *(f"{one.output} decoded as {one.decoded_by()}" for one in inferred[:_MOST_DECODINGS]),
        f"{more} more inferred: enginesmith inspect" if (more := len(inferred) - _MOST_DECODINGS) > 0 else "",
        *_largest_differences(verification),
        "" if share is None else f"share of different integers, ids and booleans {share:.2g}",
        f"judged on {verification.judged_on}" if least is None and verification.judged_on is not None else "",
        verification.reason,
    )
    return "; ".join(part for part in parts if part)


def _largest_differences(verification: "Verification") -> Iterator[str]:
    """Yield the largest difference under each limit: outputs may have limits of their own."""
    worst: dict[float | None, OutputDifference] = {}
    for one in verification.differences:
        if one.mismatches is None:
            limit = _limit_of(verification, one.output)
            worst[limit] = max(worst.get(limit, one), one, key=lambda one: one.difference)
    for limit, one in worst.items():
        name = f" of {one.output}" if len(worst) > 1 else ""
        yield f"largest difference {one.difference:.2g}{name}{'' if limit is None else f', limit {limit:.2g}'}"


def _limit_of(verification: "Verification", output: str) -> float | None:
    """Return the limit of the ratio; None where agreement decides, and with it a `limit` is that of one value."""
    gate = (verification.outputs or {}).get(output)
    if gate is None or gate.limit is None or (verification.agreements and gate.decode == "values"):
        return verification.limit
    return gate.limit


def _agreement(one: "OutputAgreement") -> str:
    share = "no answer" if one.agreement is None else f"agreement {one.agreement:.4g} of {one.answers} answers"
    share += "" if one.limit is None else f", limit {one.limit:g}"
    measures = (
        "" if one.cosine is None else f"cosine {one.cosine:.4g}",
        "" if one.mean_relative_error is None else f"mean relative error {one.mean_relative_error:.3g}",
        "" if one.sqnr_db is None else f"SQNR {one.sqnr_db:.1f} dB",
        one.worst or "",
    )
    found = "; ".join(part for part in (share, *measures) if part)
    return f"{one.output}, {one.decoded_by()}: {found}"


def _difference(metric: str, one: "OutputDifference") -> str:
    point = "" if one.point is None else f", {one.point}"
    found = f"{metric} {one.difference:.3g}"
    if one.mismatches is not None:
        found = f"share of different values {one.mismatches:.3g}"
    worst = f" ({one.worst})" if one.worst else ""
    return f"{one.output}, profile {one.profile}{point}: {found}{worst}"
