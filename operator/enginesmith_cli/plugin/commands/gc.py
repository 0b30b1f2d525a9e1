"""`kubectl enginesmith gc`: lists what nothing needs any more, and deletes it with --yes."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Final

from enginesmith_contract.exit_codes import ExitCode

__all__ = ["add_arguments", "run"]

_MOST_HOURS: Final = 24.0 * 365 * 100

_EXAMPLES: Final = """examples:
  kubectl enginesmith gc -A                    lists what would be deleted
  kubectl enginesmith gc -n vision --yes       deletes it

It lists failed EngineBuilds that no engine names, and Jobs whose owner is gone. To delete entries of the store, use
`enginesmith store gc`, which needs the store's account.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.plugin.kubectl import add_connection_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    parser.add_argument(
        "--older-than", type=_hours, default=24.0, metavar="HOURS", help="age of failed builds (default: %(default)s)"
    )
    add_connection_options(parser, everywhere=True)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text}: expected hours, from 0 to {_MOST_HOURS:g}")
    return hours


def run(arguments: argparse.Namespace) -> int:
    """List, and delete where asked to."""
    from enginesmith_cli.plugin.kubectl import Kubectl
    from enginesmith_cli.plugin.objects import Objects
    from enginesmith_cli.plugin.reading import KINDS
    from enginesmith_cli.plugin.unneeded import find_unneeded
    from enginesmith_cli.tables import table_lines

    kubectl = Kubectl.from_arguments(arguments)
    # Without one of the kinds every owner would look gone.
    found = kubectl.get(*KINDS, "jobs.batch", whole=True)
    unneeded = list(find_unneeded(Objects(found.items), datetime.now(UTC), timedelta(hours=arguments.older_than)))
    if not unneeded:
        print("nothing is unneeded")
        return ExitCode.OK
    rows = [(one.kind, one.namespace, one.name, one.why) for one in unneeded]
    print("\n".join(table_lines(("KIND", "NAMESPACE", "NAME", "WHY"), rows)))
    if not arguments.yes:
        print(f"nothing was deleted: --yes deletes {'it' if len(unneeded) == 1 else f'these {len(unneeded)}'}")
        return ExitCode.OK
    for one in unneeded:
        kubectl.delete(one.path, one.uid)
        print(f"deleted {one.kind} {one.namespace}/{one.name}")
    return ExitCode.OK
