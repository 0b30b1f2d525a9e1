"""Exit codes of every process that the product starts.

A Job's podFailurePolicy and the roll-back of a refused engine read these numbers: they change only by addition.
"""

from enum import IntEnum, unique

__all__ = ["ExitCode"]


@unique
class ExitCode(IntEnum):
    """Why a process ended."""

    OK = 0
    INTERNAL = 1
    """Internal error of Enginesmith. The log has the traceback."""
    USAGE = 2
    """The command line is wrong. argparse uses this code."""
    SPEC_INVALID = 10
    PLAN_REFUSED = 11
    SOURCE_FAILED = 12
    MODEL_INVALID = 13
    BUILD_FAILED = 14
    BUILD_OUT_OF_MEMORY = 15
    BUILD_TIMED_OUT = 16
    VERIFICATION_FAILED = 17
    STORE_FAILED = 18
    ENGINE_REFUSED = 30
    """The engine does not fit this hardware or toolchain, or its files are damaged. A retry here cannot help."""
    DEVICE_FAILED = 31
    """The GPU is lost or its context has failed. Restart, on another node if it repeats."""
    SERVE_FAILED = 32
    """The server cannot listen on its address, or its options cannot be met."""
    CALL_FAILED = 33
    """A client's call failed: no server answers, or the server refused it."""
    INFERENCE_FAILED = 34
    """One inference failed because of the model or its inputs."""
    CANCELLED = 130
    """Stopped by SIGINT (128 + 2, as shells expect)."""
