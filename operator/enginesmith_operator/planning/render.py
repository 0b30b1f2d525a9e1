"""A plan as a table for a terminal: plain text, the same for the same plan."""

from collections.abc import Iterator, Sequence
from textwrap import dedent
from typing import Final

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_operator.planning.plan_records import EnginePlan, Plan, TargetPlan, TargetState
from enginesmith_operator.planning.toolchains import toolchain_text

__all__ = ["render_plan"]

_HEAD: Final = ("TARGET", "STATE", "HARDWARE", "TOOLCHAIN", "NODES", "ENGINE")
_SHOWN: Final = 3
_PENDING: Final = "pending"


def render_plan(plan: Plan) -> str:
    """Return the plan as text that ends with a newline."""
    name = f"{plan.namespace}/{plan.name}" if plan.namespace else plan.name
    return "\n".join([name, *(f"  {line}".rstrip() for line in _lines(plan))]) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"preparation {_preparation(plan)}"
    if plan.fallback:
        yield f"precision {plan.preparation.precision.default}, or else {', then '.join(plan.fallback)}"
    yield from (f"{one.field} {one.value} (EnginePolicy {one.policy})" for one in plan.inherited)
    yield from (f"no: {refusal.sentence()}" for refusal in plan.refusals)
    if plan.suggestion:
        yield "a profile for this model, with sizes to adjust:"
        # Every line is indented by two more: as it is pasted below `spec:`.
        yield from dedent(plan.suggestion).splitlines()
    if not plan.refusals:
        yield from _table([_HEAD, *(row for target in plan.targets for row in _rows(target))])
        yield from (line for target in plan.targets for line in _reasons(target))
    for condition in plan.conditions:
        if condition.type == "UpdateAvailable":
            yield f"update available: {condition.message}"
    yield from (f"warning: {warning}" for warning in plan.warnings)


def _preparation(plan: Plan) -> str:
    if plan.preparation_key is None:
        return f"{_PENDING} (the model's digest is not known yet)"
    state = "stored" if plan.prepared else "to be made on a CPU"
    return f"{plan.preparation_key[:NAME_KEY_LENGTH]} ({state})"


def _rows(target: TargetPlan) -> Iterator[tuple[str, ...]]:
    if not target.engines:
        yield (target.name, _state(target), "-", "-", "-", "-")
    for number, engine in enumerate(target.engines):
        first = number == 0
        yield (
            target.name if first else "",
            _state(target) if first else "",
            _hardware(engine),
            toolchain_text(engine.toolchain),
            _names(engine.nodes),
            _engine(engine),
        )


def _state(target: TargetPlan) -> str:
    match target.state:
        case TargetState.REFUSED:
            return "no"
        case TargetState.BUILD_ONLY:
            return "build only"
        case TargetState.PLANNED:
            if not target.standby:
                return "serve"
            return "standby, on" if target.deployment and target.deployment.serves else "standby, off"


def _hardware(engine: EnginePlan) -> str:
    hardware = engine.hardware
    product = hardware.product or (f"compute {hardware.compute_capability}" if hardware.compute_capability else "CPU")
    return f"{product} {hardware.mig_profile}" if hardware.mig_profile else f"{product} {hardware.arch}"


def _names(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def _engine(engine: EnginePlan) -> str:
    if engine.engine_key is None:
        return _PENDING
    return f"{engine.engine_key[:NAME_KEY_LENGTH]} ({'stored' if engine.stored else 'to be built'})"


def _reasons(target: TargetPlan) -> Iterator[str]:
    notes = [
        *(f"{toolchain_text(one.toolchain)} for {_hardware(one)}: {one.why}" for one in target.engines),
        *(f"build on {_names(one.build_nodes)}" for one in target.engines if _builds_elsewhere(one)),
        *(f"quick engine: {_engine(one.quick)}" for one in target.engines if one.quick and not one.stored),
        *dict.fromkeys(f"not known: {doubt}" for one in target.engines for doubt in one.doubts),
        *(f"no: {count.sentence()}" for count in target.refusals),
        *target.hints,
    ]
    if target.state is TargetState.REFUSED and not target.refusals:
        notes.append("no: no node was seen")
    if notes:
        yield f"{target.name}:"
        yield from (f"  - {note}" for note in notes)


def _builds_elsewhere(engine: EnginePlan) -> bool:
    return bool(engine.build_nodes) and engine.build_nodes != engine.nodes and not engine.stored


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
