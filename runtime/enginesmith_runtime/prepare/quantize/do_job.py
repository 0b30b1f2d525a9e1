"""Runs the jobs of a quantisation in the child process."""

from collections.abc import Callable
from typing import assert_never

from enginesmith_contract.record import Record
from enginesmith_runtime.prepare.quantize.auto_keep import find_nodes_to_keep
from enginesmith_runtime.prepare.quantize.calibrate import calibrate
from enginesmith_runtime.prepare.quantize.jobs import AutoKeepJob, CalibrateJob, QuantizeJob, SamplesJob
from enginesmith_runtime.prepare.quantize.sample_runs import run_samples
from enginesmith_runtime.prepare.quantize.write import write_quantized
from enginesmith_runtime.prepare.runs.reference_runs import bound_memory

__all__ = ["do_job"]


def do_job(job: AutoKeepJob | CalibrateJob | QuantizeJob | SamplesJob, tick: Callable[[float], None]) -> Record:
    """Do a job and return its result.

    Args:
        job: The job.
        tick: Function that receives the completed share of long jobs.

    Raises:
        enginesmith_contract.errors.EnginesmithError: The error of the job.
    """
    match job:
        case AutoKeepJob():
            bound_memory(job.memory_bytes)
            return find_nodes_to_keep(job, tick)
        case CalibrateJob():
            return calibrate(job, tick)
        case QuantizeJob():
            return write_quantized(job)
        case SamplesJob():
            return run_samples(job, tick)
        case _:
            assert_never(job)
