"""Runs kubectl, so that its kubeconfig, contexts, logins and namespaces also apply to the plugin.

What kubectl writes on standard error is turned into the product's errors. Where one of several kinds is refused, the
others are returned with the refusal.
"""

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.text import one_line, shorten

__all__ = ["ClusterCallError", "Found", "Json", "Kubectl", "add_connection_options", "call_error"]

Json = dict[str, Any]

_OPTIONS: Final = (
    ("--kubeconfig", "FILE", "kubeconfig file"),
    ("--context", "NAME", "context of the kubeconfig"),
    ("--cluster", "NAME", "cluster of the kubeconfig"),
    ("--user", "NAME", "user of the kubeconfig"),
    ("--as", "USER", "user to impersonate"),
)
_LONGEST: Final = 600


class ClusterCallError(EnginesmithError):
    """kubectl did not get an answer, or the API server refused."""

    exit_code = ExitCode.CALL_FAILED
    default_reason = "ClusterFailed"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Objects that were read.

    Attributes:
        items: as the API server has them.
        refused: what could not be read, one line each.
    """

    items: tuple[Json, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """kubectl with one connection and namespace.

    Attributes:
        flags: of the connection.
        scope: of the namespace: `-n NAME`, `-A` or nothing (the namespace of the context).
    """

    flags: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Kubectl":
        """Return kubectl as the command line asks for it."""
        named = ((option, getattr(arguments, option[2:].replace("-", "_"))) for option, _, _ in _OPTIONS)
        flags = tuple(f"{option}={value}" for option, value in named if value)
        if getattr(arguments, "all_namespaces", False):
            return cls(flags=flags, scope=("--all-namespaces",))
        return cls(flags=flags, scope=(f"--namespace={arguments.namespace}",) if arguments.namespace else ())

    def command(self, *words: str) -> list[str]:
        """Return the command line of a call."""
        return ["kubectl", *words, *self.scope, *self.flags]

    def get(self, *kinds: str, selector: str = "", whole: bool = False) -> Found:
        """Return the objects of some kinds.

        Args:
            kinds: as kubectl takes them.
            selector: of labels; empty: all objects.
            whole: whether one kind that cannot be read is an error, too.

        Raises:
            ClusterCallError: none of them can be read.
        """
        words = ["get", ",".join(kinds), "--output=json", "--ignore-not-found"]
        done = _run(self.command(*words, *([f"--selector={selector}"] if selector else [])))
        items = _items(done.stdout)
        if done.returncode and (whole or not items):
            raise call_error(done.stderr)
        refused = [one_line(line) for line in done.stderr.splitlines() if line.startswith("Error")]
        return Found(items=items, refused=tuple(refused))

    def output(self, *words: str) -> str:
        """Return what a call prints.

        Raises:
            ClusterCallError: it failed.
        """
        done = _run(["kubectl", *words, *self.flags])
        if done.returncode:
            raise call_error(done.stderr)
        return done.stdout.strip()

    def show(self, *words: str) -> int:
        """Run a call that writes to this process's own output; return its exit code."""
        return subprocess.call(self.command(*words))  # noqa: S603 - a fixed program, no shell

    def delete(self, path: str, uid: str) -> None:
        """Delete one object by its uid; the objects that it owns are deleted with it.

        Args:
            path: URL path of the object.
            uid: of the object; another object of the same name stays.

        Raises:
            ClusterCallError: the API server refuses.
        """
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        body = json.dumps(options | {"preconditions": {"uid": uid}})
        done = _run(["kubectl", "delete", f"--raw={path}", "--filename=-", *self.flags], body)
        if done.returncode:
            raise call_error(done.stderr)


def add_connection_options(parser: argparse.ArgumentParser, *, everywhere: bool = False) -> None:
    """Add kubectl's own options.

    Args:
        parser: of the command.
        everywhere: whether the command may look into all namespaces.
    """
    parser.add_argument("--namespace", "-n", metavar="NAME", help="namespace (default: that of the context)")
    if everywhere:
        parser.add_argument("--all-namespaces", "-A", action="store_true", help="look into all namespaces")
    for option, value, text in _OPTIONS:
        parser.add_argument(option, metavar=value, help=text)


def call_error(stderr: str) -> ClusterCallError:
    """Return the error for what kubectl wrote on standard error."""
    lines = [line for line in stderr.splitlines() if line.strip() and not _is_log(line)]
    why = shorten(one_line(" ".join(lines)).removeprefix("error: "), _LONGEST)
    for rule in _RULES:
        if re.search(rule.pattern, why):
            return ClusterCallError(rule.what, why=why, remedy=rule.remedy, reason=rule.reason)
    return ClusterCallError("kubectl failed", why=why or "it wrote no reason")


class _Rule(NamedTuple):
    """The meaning of an error pattern on standard error."""

    pattern: str
    what: str
    remedy: str
    reason: str


_RULES: Final = (
    _Rule(
        r"""resource type "?\w*(enginesmith|inferenceengine|enginebuild|enginepolic)|no matches for kind""",
        "Enginesmith is not installed in this cluster",
        "install its chart (docs/installation.md), or choose another cluster with --context",
        reason="NotInstalled",
    ),
    _Rule(
        r"nodes is forbidden",
        "you may not do this",
        "ask an administrator for the nodes and policies as files, and use: enginesmith plan --nodes --policies",
        reason="Forbidden",
    ),
    _Rule(
        r"is forbidden: .* at the cluster scope",
        "you may not do this",
        "choose a namespace with -n, or ask for the role `view` in all of them",
        reason="Forbidden",
    ),
    _Rule(
        r"\(Forbidden\)|is forbidden",
        "you may not do this",
        "ask for the role `view` in the namespace (`edit` to change something), or choose another with -n",
        reason="Forbidden",
    ),
    _Rule(
        r"\(Unauthorized\)|must be logged in|[Pp]lease enter|getting credentials",
        "the API server does not accept this login",
        "log in again, or choose another context with --context",
        reason="Unauthorized",
    ),
    _Rule(
        r"(context|cluster|auth info) (\S+ )?(does not exist|was not found)|no server found for cluster"
        r"|no configuration has been provided",
        "the kubeconfig does not have that",
        "list what it has with: kubectl config get-contexts",
        reason="NoConnection",
    ),
    _Rule(
        r"error loading config|stat .*no such|invalid configuration",
        "the kubeconfig cannot be read",
        "correct the file, or name another with KUBECONFIG or --kubeconfig",
        reason="NoConnection",
    ),
    _Rule(
        r"connection to the server|[Uu]nable to connect|no such host|i/o timeout|ServiceUnavailable|refused",
        "no cluster answers",
        "check KUBECONFIG and the context (kubectl config get-contexts), and that the cluster runs",
        reason="ClusterUnavailable",
    ),
)


def _run(command: Sequence[str], stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed program, no shell
    except FileNotFoundError as error:
        remedy = "install kubectl, or add its folder to PATH"
        raise ClusterCallError("kubectl is not on PATH", remedy=remedy, reason="NoConnection") from error


def _items(stdout: str) -> tuple[Json, ...]:
    if not stdout.strip():
        return ()
    document = json.loads(stdout)
    found = document.get("items")
    return tuple(found) if isinstance(found, list) else (document,)


def _is_log(line: str) -> bool:
    """Whether a line is of kubectl's own log ("E1130 01:02:03.4 ..."), which says the same again."""
    return re.match(r"[EWI]\d{4} ", line) is not None
