"""`kubectl enginesmith explain`: why something is not Ready, what the reason means, and what helps."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.plugin.explanation import Cause, Explanation

__all__ = ["add_arguments", "run"]

_EXAMPLES: Final = """examples:
  kubectl enginesmith explain resnet50            an InferenceEngine
  kubectl enginesmith explain build/resnet50-l4-4f1c0de29ab3
  kubectl enginesmith explain NoFreeGPU           a reason

The exit code is 0 where the object is Ready and nothing needs attention, else 11.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.plugin.kubectl import add_connection_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("name", metavar="NAME", help="InferenceEngine, build/EngineBuild, or a reason")
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    add_connection_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain one object, or one word."""
    from enginesmith_cli.plugin.explanation import explain_object, find_reason
    from enginesmith_cli.plugin.kubectl import Kubectl
    from enginesmith_cli.plugin.objects import Objects
    from enginesmith_cli.plugin.reading import kind_and_name, read_family, say_refused

    row = find_reason(arguments.name)
    if row is not None:
        print(row.to_json().decode() if arguments.output == "json" else f"{row.means}\nWhat to do: {row.do}")
        return ExitCode.OK
    kind, name = kind_and_name(arguments.name)
    objects = Objects(say_refused(read_family(Kubectl.from_arguments(arguments), events=True)).items)
    found = explain_object(objects.named(kind, name)[0], objects)
    if arguments.output == "json":
        print(json.dumps(found.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(found)))
    return ExitCode.OK if found.is_ready else ExitCode.PLAN_REFUSED


def _lines(found: "Explanation") -> Iterator[str]:
    yield f"{found.kind} {found.namespace}/{found.name}: {found.summary}"
    for cause in found.causes:
        yield ""
        yield from _cause_lines(cause)
    if found.events:
        yield ""
        yield "Warnings of its objects:"
        yield from (f"  {event}" for event in found.events[-10:])


def _cause_lines(cause: "Cause") -> Iterator[str]:
    yield f"{cause.reason or 'No reason'} ({cause.where})"
    if cause.message:
        yield f"  {cause.message}"
    if cause.means:
        yield f"  It means:   {cause.means}"
    if cause.do:
        yield f"  What to do: {cause.do}"
    if cause.evidence:
        yield "  End of the builder's log:"
        yield from (f"    {line}" for line in cause.evidence)
