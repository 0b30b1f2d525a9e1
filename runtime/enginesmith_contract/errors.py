"""Errors as the person who meets them reads them: what, where, why, what to do.

    EnginesmithError
    ├── SpecError          the user's document is wrong; nothing but an edit helps
    ├── PlanRefusedError   no target can be built or served here
    ├── SourceError        the model could not be had (missing, reset, wrong digest, outside its folder)
    ├── ModelError         the file is had, and is not a model that can be used
    ├── BuildError         the builder refused or failed
    │   ├── BuildOutOfMemoryError   it was killed, or could not have the memory it asked for
    │   └── BuildTimedOutError      it ran longer than the request allows
    ├── VerificationError  the engine's answers differ from the reference
    ├── StoreError         the engine store cannot be written, or what it holds is not what was written
    ├── EngineRefusedError the engine does not fit what the runtime sees: never loaded
    │   └── DeviceFailedError       the device broke under a loaded engine: the process must end
    ├── ServeError         a server cannot listen or be started as asked
    ├── InferenceError     one inference failed; the engine and the device are fine
    └── CancelledBuildError the user or the pod's end stopped it

The class says how an error is handled, `reason` (CamelCase, stable, a row of `reasons.yaml`) which one it is,
`exit_code` what a process that ends on it returns. Messages are one line and deterministic: no time, no temporary path.
"""

from enginesmith_contract.exit_codes import ExitCode

__all__ = [
    "BuildError",
    "BuildOutOfMemoryError",
    "BuildTimedOutError",
    "CancelledBuildError",
    "DeviceFailedError",
    "EngineRefusedError",
    "EnginesmithError",
    "InferenceError",
    "ModelError",
    "PlanRefusedError",
    "ServeError",
    "SourceError",
    "SpecError",
    "StoreError",
    "VerificationError",
]


class EnginesmithError(Exception):
    """A failure with the four things that its reader needs.

    Attributes:
        what: what went wrong, as a clause ("the digest differs").
        where: the field, file, node or tensor it is about.
        why: what was found; may hold several lines where several things are wrong (all unsupported operators).
        remedy: what to do, as an imperative.
        reason: a stable CamelCase word, fit for a Kubernetes condition.
        retry: whether the same attempt may succeed later without a change by the user.
    """

    exit_code = ExitCode.INTERNAL
    default_reason = "InternalError"

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        remedy: str = "",
        reason: str = "",
        retry: bool = False,
    ) -> None:
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy
        self.reason = reason or self.default_reason
        self.retry = retry
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the whole message: `where: what: why. Remedy.`."""
        head = ": ".join(part for part in (self.where, self.what, self.why) if part)
        if not self.remedy:
            return head
        return f"{head.rstrip('.')}. {self.remedy[0].upper()}{self.remedy[1:].rstrip('.')}."


class SpecError(EnginesmithError):
    """The user's document is wrong; nothing but an edit helps."""

    exit_code = ExitCode.SPEC_INVALID
    default_reason = "SpecInvalid"


class PlanRefusedError(EnginesmithError):
    """No target of a document can be built or served here."""

    exit_code = ExitCode.PLAN_REFUSED
    default_reason = "NoTargetFits"


class SourceError(EnginesmithError):
    """The model could not be had."""

    exit_code = ExitCode.SOURCE_FAILED
    default_reason = "SourceFailed"


class ModelError(EnginesmithError):
    """The file is had, and is not a model that can be used as asked."""

    exit_code = ExitCode.MODEL_INVALID
    default_reason = "ModelInvalid"


class BuildError(EnginesmithError):
    """The builder refused, failed, or ran out of memory or time."""

    exit_code = ExitCode.BUILD_FAILED
    default_reason = "BuildFailed"


class BuildOutOfMemoryError(BuildError):
    """The builder was killed for memory, or could not have what it asked for; more memory may help."""

    exit_code = ExitCode.BUILD_OUT_OF_MEMORY
    default_reason = "OutOfMemory"


class BuildTimedOutError(BuildError):
    """The builder ran longer than the request allows."""

    exit_code = ExitCode.BUILD_TIMED_OUT
    default_reason = "TimedOut"


class VerificationError(EnginesmithError):
    """The engine's answers differ from the reference by more than the limit."""

    exit_code = ExitCode.VERIFICATION_FAILED
    default_reason = "VerificationFailed"


class StoreError(EnginesmithError):
    """The engine store cannot be written, or what it holds is not what was written."""

    exit_code = ExitCode.STORE_FAILED
    default_reason = "StoreFailed"


class EngineRefusedError(EnginesmithError):
    """The engine does not fit what the runtime sees; it was not loaded."""

    exit_code = ExitCode.ENGINE_REFUSED
    default_reason = "EngineRefused"


class ServeError(EnginesmithError):
    """A server cannot listen or be started as asked."""

    exit_code = ExitCode.SERVE_FAILED
    default_reason = "ServeFailed"


class DeviceFailedError(EngineRefusedError):
    """The device, or this process's hold on it, is broken; only a new process can go on."""

    exit_code = ExitCode.DEVICE_FAILED
    default_reason = "DeviceFailed"


class InferenceError(EnginesmithError):
    """One inference failed for what is in the model or in its inputs; the next one may succeed."""

    exit_code = ExitCode.INFERENCE_FAILED
    default_reason = "InferenceFailed"


class CancelledBuildError(EnginesmithError):
    """The user or the end of the pod stopped the work; nothing was stored."""

    exit_code = ExitCode.CANCELLED
    default_reason = "Cancelled"
