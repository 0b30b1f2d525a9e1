"""Fetches files of input values from all sources of models: a bucket, a web server, a registry, a volume."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.claims import in_mounted_claim
from enginesmith_runtime.fetch.library import fetch_file
from enginesmith_runtime.progress import Reporter

__all__ = ["InputFiles"]


@dataclass(frozen=True, kw_only=True)
class InputFiles:
    """Copies of the .npz files of one preparation.

    Attributes:
        folder: Existing folder that receives them.
        source: Source of the model. Its options apply to URIs of the same scheme, and its credentials to all.
    """

    folder: Path
    source: ModelSource
    reporter: Reporter

    def fetch(self, name: str, uri: str) -> Path:
        """Copy the file at `uri` for the input `name`. Return the path of the copy.

        Raises:
            enginesmith_contract.errors.SourceError: The file cannot be fetched.
        """
        target = self.folder / f"{sum(1 for _ in self.folder.iterdir())}.npz"
        same = urlsplit(uri).scheme == urlsplit(self.source.uri).scheme
        source = ModelSource(uri=uri, options=self.source.options if same else {})
        self.reporter.begin("fetch", f"values of {name}")
        fetch_file(in_mounted_claim(source, os.environ), target, self.reporter)
        self.reporter.end(sizeBytes=target.stat().st_size)
        return target
