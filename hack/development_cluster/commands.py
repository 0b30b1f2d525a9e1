"""Runs a program to its end, and shows its output if it fails."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from development_cluster.errors import ClusterError

__all__ = ["attempt", "run"]

_SHOWN_LINES = 20


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Run to the end and return the standard output.

    Args:
        command: program and arguments.
        stdin: text for its standard input.
        environment: variables in addition to this process's own.
        cwd: its working folder.
        log: takes everything it writes; the returned text is empty then.

    Raises:
        ClusterError: with the last lines that the program wrote.
    """
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise ClusterError(f"the program {words[0]} is missing")
    variables = {**os.environ, **(environment or {})}
    if log is not None:
        with log.open("ab") as file:
            logged = subprocess.run(
                words, input=stdin, env=variables, cwd=cwd, stdout=file, stderr=file, text=True, check=False
            )
        if logged.returncode:
            raise ClusterError(f"{words[0]} ended with exit code {logged.returncode}: {shlex.join(words)}", log=log)
        return ""
    done = subprocess.run(words, input=stdin, env=variables, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:])
        raise ClusterError(f"{shlex.join(words)} ended with exit code {done.returncode}\n{said}")
    return done.stdout


def attempt(command: Sequence[str | Path], *, stdin: str | None = None) -> bool:
    """Run to the end, silently, and return whether the program is there and succeeded."""
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        return False
    return not subprocess.run(words, input=stdin, capture_output=True, text=True, check=False).returncode
