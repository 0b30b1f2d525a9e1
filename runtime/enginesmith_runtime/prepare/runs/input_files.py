"""Files of input values that lie where models may lie: a bucket, a web server, a registry, a volume of the cluster."""

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
        folder: receives them; must exist.
        source: of the model, whose options count for addresses of the same scheme. Credentials are the same for both.
    """

    folder: Path
    source: ModelSource
    reporter: Reporter

    def fetch(self, name: str, uri: str) -> Path:
        """Copy the file at `uri` for the input `name`; returns the copy's path.

        Raises:
            enginesmith_contract.errors.SourceError: it could not be had.
        """
        target = self.folder / f"{sum(1 for _ in self.folder.iterdir())}.npz"
        same = urlsplit(uri).scheme == urlsplit(self.source.uri).scheme
        source = ModelSource(uri=uri, options=self.source.options if same else {})
        self.reporter.begin("fetch", f"values of {name}")
        fetch_file(in_mounted_claim(source, os.environ), target, self.reporter)
        self.reporter.end(sizeBytes=target.stat().st_size)
        return target
