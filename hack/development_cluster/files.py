"""Writes settings only if they differ, because kube-proxy exits when its file is written again.

What is to be written takes the old file's place as a whole, since others read it at any time.
"""

import json
from pathlib import Path

__all__ = ["write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Make the file, and its folder, unless it holds this text already."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, which is also YAML, unless the file already has it."""
    write_text(path, json.dumps(value, indent=2))
