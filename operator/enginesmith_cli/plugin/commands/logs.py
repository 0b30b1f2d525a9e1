"""`kubectl enginesmith logs`: the log of what prepares, builds or serves an engine, whichever pod that is."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.plugin.objects import Objects

__all__ = ["add_arguments", "run"]

_EXAMPLES: Final = """examples:
  kubectl enginesmith logs resnet50                     the servers, else the newest build or preparation
  kubectl enginesmith logs resnet50 --target l4 --build -f
"""
_MOST_FOLLOWED: Final = "--max-log-requests=32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.plugin.kubectl import add_connection_options
    from enginesmith_operator.objects.labels import Component

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("name", metavar="NAME", help="InferenceEngine")
    parser.add_argument("--target", metavar="NAME", help="one target only")
    which = parser.add_mutually_exclusive_group()
    for option, value in (
        ("--serving", Component.SERVER),
        ("--build", Component.BUILD),
        ("--preparation", Component.PREPARATION),
    ):
        which.add_argument(option, dest="component", action="store_const", const=value, help=f"pods that are {value}s")
    parser.add_argument("--follow", "-f", action="store_true", help="follow the log")
    parser.add_argument("--tail", type=int, default=-1, metavar="LINES", help="only the last lines (default: all)")
    add_connection_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run `kubectl logs` for the pods; where the pod of a failed build is gone, print the end of its log."""
    from enginesmith_cli.plugin.kubectl import Kubectl
    from enginesmith_cli.plugin.objects import Objects
    from enginesmith_cli.plugin.reading import engine_name, read_family, say_refused
    from enginesmith_operator.objects.labels import COMPONENT, ENGINE, TARGET, Component

    kubectl = Kubectl.from_arguments(arguments)
    arguments.name = engine_name(arguments.name)
    objects = Objects(say_refused(read_family(kubectl)).items)
    engine = objects.named("InferenceEngine", arguments.name)[0]
    component = _component(objects, arguments, Component.SERVER, Component.BUILD, Component.PREPARATION)
    if component is None:
        return _print_kept(objects, engine, arguments)
    labels = {ENGINE: arguments.name, COMPONENT: component}
    # A preparation is of the whole engine.
    labels |= {TARGET: arguments.target} if arguments.target and component != Component.PREPARATION else {}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    words = ["logs", f"--selector={selector}", "--all-containers", "--prefix", f"--tail={arguments.tail}"]
    words += ["--follow", _MOST_FOLLOWED] if arguments.follow else []
    return kubectl.show(*words)


def _component(objects: "Objects", arguments: argparse.Namespace, *order: str) -> str | None:
    """Return the component that is asked for, or the first that has pods; None: none has."""
    from enginesmith_cli.plugin.objects import component_of, label
    from enginesmith_operator.objects.labels import ENGINE, TARGET

    pods = [one for one in objects.of("Pod") if label(one, ENGINE) == arguments.name]
    last = order[-1]
    there = {
        component_of(one) for one in pods if component_of(one) == last or arguments.target in {None, label(one, TARGET)}
    }
    wanted = (arguments.component,) if arguments.component else order
    return next((one for one in wanted if one in there), None)


def _print_kept(objects: "Objects", engine: dict[str, Any], arguments: argparse.Namespace) -> int:
    from enginesmith_cli.plugin.objects import name_of

    builds = [
        one
        for one in objects.owned(engine, "EngineBuild")
        if arguments.target in {None, one["spec"].get("target")}
        and ((one.get("status") or {}).get("failure") or {}).get("logTail")
    ]
    if not builds or arguments.component not in {None, "build"}:
        what = f"there is no pod of the kind {arguments.component}" if arguments.component else "it has no pod"
        remedy = f"find out what it waits for with: kubectl enginesmith explain {arguments.name}"
        raise SpecError(what, where=arguments.name, remedy=remedy, reason="NotFound")
    for build in builds:
        print(f"[end of the log of {name_of(build)}, whose pod is gone]")
        print(build["status"]["failure"]["logTail"])
    return ExitCode.OK
