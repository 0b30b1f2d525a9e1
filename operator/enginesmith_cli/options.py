"""Options that several commands share, and what they stand for."""

import argparse

from enginesmith_contract.errors import ServeError

__all__ = ["add_home_options", "add_server_options", "metrics_address", "require_free_address"]


def add_home_options(parser: argparse.ArgumentParser) -> None:
    """Add where local mode keeps its things."""
    parser.add_argument("--store", metavar="URI", help="engine store (default: $ENGINESMITH_STORE, else in the home)")
    parser.add_argument(
        "--home", metavar="DIR", help="folder of local mode (default: $ENGINESMITH_HOME, else ~/.cache/enginesmith)"
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add where a server listens."""
    parser.add_argument(
        "--address", default="127.0.0.1:8001", metavar="HOST:PORT", help="of the protocol; port 0 takes a free one"
    )
    parser.add_argument(
        "--metrics-address", default="127.0.0.1:8002", metavar="HOST:PORT", help="of Prometheus metrics; `none`: none"
    )
    parser.add_argument(
        "--instances", type=_instances, metavar="N", help="inferences at once per model (default: the file's)"
    )
    parser.add_argument(
        "--max-queued",
        type=_max_queued,
        metavar="N",
        help="requests of each model that may wait, 0 to 4096 (default: the file's)",
    )
    parser.add_argument(
        "--max-streams",
        type=_max_streams,
        metavar="N",
        help="streams of requests that may be open, 1 to 4096 (default: the file's)",
    )
    parser.add_argument(
        "--shared-memory", action="store_true", help="let clients on this machine register memory that they share"
    )
    parser.add_argument(
        "--front-ends",
        type=_front_ends,
        default=0,
        metavar="N",
        help="processes that take large messages off the wire, 0 to 32 (default: the file's)",
    )


def _instances(text: str) -> int:
    return _number(text, 1, 64)  # the bounds of ServedModel


def _max_queued(text: str) -> int:
    return _number(text, 0, 4096)  # the bounds of ServedModel


def _max_streams(text: str) -> int:
    return _number(text, 1, 4096)  # the bounds of ServeRequest


def _front_ends(text: str) -> int:
    return _number(text, 0, 32)  # the bounds of ServeRequest


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def metrics_address(arguments: argparse.Namespace) -> str | None:
    """Return where metrics are wanted; None: nowhere."""
    return None if arguments.metrics_address == "none" else str(arguments.metrics_address)


def require_free_address(arguments: argparse.Namespace) -> None:
    """Refuse an address that is taken before minutes are spent on a build.

    Raises:
        ServeError: an address is malformed, taken or not this machine's.
    """
    import socket

    for address in (arguments.address, metrics_address(arguments)):
        if address is None:
            continue
        host, _, port = address.rpartition(":")
        if not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004 - the largest TCP port
            raise ServeError(
                "not an address",
                where=address,
                why="HOST:PORT is wanted",
                remedy="write 127.0.0.1:8001",
                reason="Usage",
            )
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
            except OSError as error:
                raise ServeError(
                    "cannot listen",
                    where=address,
                    why=error.strerror or str(error),
                    remedy="stop what listens there, or choose another address (port 0 for a free one)",
                    reason="AddressUnavailable",
                ) from error
