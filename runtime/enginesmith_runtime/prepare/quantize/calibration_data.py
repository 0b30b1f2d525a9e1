"""Fetches the calibration data of a preparation to the local disk."""

import os
from functools import partial
from pathlib import Path

from enginesmith_contract.preparation import PreparationRequest
from enginesmith_runtime.fetch.claims import in_mounted_claim
from enginesmith_runtime.fetch.data import FetchedData, data_source, fetch_data
from enginesmith_runtime.prepare.quantize.sample_files import select_files
from enginesmith_runtime.progress import Reporter

__all__ = ["fetch_calibration_data"]


def fetch_calibration_data(
    request: PreparationRequest, folder: Path, reporter: Reporter, base: Path | None
) -> FetchedData | None:
    """Fetch the files that the calibration uses, or return None if there is no calibration.

    Args:
        request: Request of the preparation.
        folder: Folder for downloads.
        reporter: Receives the stage "fetch".
        base: Base folder of a relative path.

    Raises:
        enginesmith_contract.errors.SourceError: see `fetch_data`.
    """
    calibration = request.precision.calibration
    if calibration is None:
        return None
    source = in_mounted_claim(data_source(calibration, request.source), os.environ)
    select = partial(select_files, calibration=calibration)
    return fetch_data(source, folder, reporter, select=select, base=base)
