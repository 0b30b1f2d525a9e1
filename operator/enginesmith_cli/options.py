"""Options that several commands share, and their values."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import ServeError, SpecError, StoreError
from enginesmith_contract.serve_request import TlsFiles, TransportName
from enginesmith_contract.signatures import public_key_problem

__all__ = [
    "add_document_options",
    "add_home_options",
    "add_server_options",
    "add_trust_option",
    "http_address",
    "metrics_address",
    "not_writable",
    "read_trusted_keys",
    "require_free_address",
    "require_usable_access",
    "tls_files",
    "tokens_folder",
]

_LARGEST_PORT: Final = 65_535
"""Of TCP."""


def add_home_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the folders of local mode."""
    parser.add_argument(
        "--store", metavar="URI", help="engine store (default: $ENGINESMITH_STORE, else a folder in --home)"
    )
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="folder for the files of local mode (default: $ENGINESMITH_HOME, else ~/.cache/enginesmith)",
    )


def add_values_option(parser: argparse.ArgumentParser, use: str) -> None:
    """Add the option for files with the chart's values; `use`: their purpose."""
    parser.add_argument(
        "--values", type=Path, action="append", default=[], metavar="FILE", help=f"{use}; may be repeated, as for Helm"
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for trusted keys of models."""
    parser.add_argument(
        "--trusted-keys",
        action="append",
        type=Path,
        metavar="FILE",
        help="public key (PEM), or folder of *.pub and *.pem, that must have signed each model; may be repeated",
    )


def read_trusted_keys(paths: Iterable[Path] | None) -> dict[str, str]:
    """Return public keys in PEM by the name of their file without its suffix.

    Raises:
        SpecError: a file cannot be read or is no public key.
    """
    keys: dict[str, str] = {}
    for path in paths or ():
        files = sorted(one for one in path.glob("*") if one.suffix in {".pub", ".pem"}) if path.is_dir() else [path]
        for file in files or [path]:
            try:
                keys[file.stem] = file.read_text(encoding="utf-8")
                why = public_key_problem(keys[file.stem])
            except OSError as error:
                why = error.strerror or str(error)
            except UnicodeDecodeError:
                why = "it is not text"
            if why:
                remedy = "name a public key in PEM, or a folder of them"
                raise SpecError("the key cannot be used", where=str(file), why=why, remedy=remedy, reason="KeyInvalid")
    return keys


def add_document_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the document, for a command that takes one."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a document of kind InferenceEngine")
    parser.add_argument("--name", metavar="NAME", help="metadata.name of the document, if the file has several")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a server."""
    parser.add_argument(
        "--address",
        default="127.0.0.1:8001",
        metavar="HOST:PORT",
        help="address of the gRPC protocol; port 0: a free port",
    )
    parser.add_argument(
        "--metrics-address",
        default="127.0.0.1:8002",
        metavar="HOST:PORT",
        help="address of the Prometheus metrics; `none`: off",
    )
    parser.add_argument(
        "--http-address",
        metavar="HOST:PORT",
        help="address of the HTTP protocol; `none`: off (default: 127.0.0.1:8000 if the file enables serving.http)",
    )
    parser.add_argument(
        "--instances", type=_instances, metavar="N", help="concurrent inferences per model (default: the file's)"
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
        help="processes that receive large messages, 0 to 32 (default: the file's)",
    )
    parser.add_argument(
        "--transport",
        type=TransportName,
        choices=tuple(TransportName),
        metavar="NAME",
        help="http2 (Enginesmith's own) or grpcio (library of the gRPC project) (default: the file's, else http2)",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="serve TLS; certificate of the server with its chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="private key of --tls-cert (PEM)")
    parser.add_argument(
        "--tls-client-ca", metavar="FILE", help="CA that must have signed the clients' certificates (PEM)"
    )
    parser.add_argument(
        "--tokens", metavar="DIR", help="require bearer tokens; the folder has one file for each client, with its token"
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


def tls_files(arguments: argparse.Namespace) -> TlsFiles | None:
    """Return the files for TLS, by their absolute paths; None: plaintext is wanted.

    Raises:
        ServeError: one of two options is missing.
    """
    given = (arguments.tls_cert, arguments.tls_key)
    if not any((*given, arguments.tls_client_ca)):
        return None
    if not all(given):
        raise ServeError(
            "TLS needs a certificate and its key",
            why="one of --tls-cert and --tls-key is missing",
            remedy="give both",
            reason="Usage",
        )
    certificate, key, client_ca = (
        None if path is None else str(Path(path).absolute()) for path in (*given, arguments.tls_client_ca)
    )
    return TlsFiles(certificate=str(certificate), key=str(key), client_ca=client_ca)


def tokens_folder(arguments: argparse.Namespace) -> str | None:
    """Return the absolute path of the folder with tokens; None: calls need none."""
    return None if arguments.tokens is None else str(Path(arguments.tokens).absolute())


def require_usable_access(arguments: argparse.Namespace) -> None:
    """Refuse certificates and tokens that no server takes before minutes are spent on a build.

    Raises:
        ServeError: a file cannot be used.
    """
    from enginesmith_runtime.server.transport.tls import Certificates
    from enginesmith_runtime.server.transport.tokens import Tokens

    tls, tokens = tls_files(arguments), tokens_folder(arguments)
    if tls is not None:
        Certificates(tls)
    if tokens is not None:
        Tokens(Path(tokens))


def metrics_address(arguments: argparse.Namespace) -> str | None:
    """Return the address of the metrics; None: metrics are off."""
    return None if arguments.metrics_address == "none" else str(arguments.metrics_address)


def http_address(arguments: argparse.Namespace, *, enabled: bool = False) -> str | None:
    """Return the address of the protocol over HTTP; None: HTTP is off.

    Args:
        arguments: with the options of `add_server_options`.
        enabled: whether a document asks for it.
    """
    given: str | None = arguments.http_address
    if given is None and enabled:
        return "127.0.0.1:8000"
    return None if given == "none" else given


def require_free_address(arguments: argparse.Namespace) -> None:
    """Refuse an address that is taken before minutes are spent on a build.

    Raises:
        ServeError: an address is malformed, taken or not this machine's.
    """
    import socket

    for address in (arguments.address, metrics_address(arguments), http_address(arguments)):
        if address is None:
            continue
        host, _, port = address.rpartition(":")
        if not port.isdigit() or int(port) > _LARGEST_PORT:
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
                    remedy="stop the process that listens there, or choose another address (port 0 for a free one)",
                    reason="AddressUnavailable",
                ) from error


def not_writable(where: str, error: OSError, remedy: str) -> StoreError:
    """Return the error of a command that cannot write to the place that an option names."""
    return StoreError(
        "cannot save there", where=where, why=error.strerror or str(error), remedy=remedy, reason="OutputNotWritable"
    )
