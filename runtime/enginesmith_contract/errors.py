"""Errors as the user reads them: what failed, where, why, and what to do.

    EnginesmithError
    ├── SpecError          the user's document is wrong; only an edit helps
    ├── PlanRefusedError   no target can be built or served here
    ├── SourceError        the model cannot be fetched (missing, reset, wrong digest, outside its folder)
    ├── ModelError         the file was fetched, but it is not a model that can be used
    ├── BuildError         the builder refused or failed
    │   ├── BuildOutOfMemoryError   it was killed for memory, or an allocation failed
    │   └── BuildTimedOutError      it ran longer than the request allows
    ├── VerificationError  the engine's answers differ from the reference
    ├── StoreError         the engine store cannot be written, or its contents are damaged
    ├── EngineRefusedError the engine does not fit the device or the library: it is not loaded
    │   └── DeviceFailedError       the device failed under a loaded engine: the process must end
    ├── ServeError         a server cannot listen or start with these options
    ├── InferenceError     one inference failed; the engine and the device are fine
    └── CancelledBuildError the user or the end of the pod stopped the build

The class tells how an error is handled. `reason` (CamelCase, stable, a row of `reasons.yaml`) identifies it, and
`exit_code` is the exit code of a process that ends because of it. Messages are one line and deterministic: they contain
no time and no temporary path.
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
    """A failure with the four parts that its reader needs.

    Attributes:
        what: Clause that says what went wrong ("the digest differs").
        where: Field, file, node or tensor that the failure is about.
        why: Observation that explains the failure. It has several lines if several things are wrong (all unsupported
            operators).
        remedy: Action for the user, as an imperative.
        reason: Stable CamelCase word that is valid as the reason of a Kubernetes condition.
        retry: Whether the same attempt may succeed later without a change by the user.
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
    """The user's document is wrong, and only an edit helps."""

    exit_code = ExitCode.SPEC_INVALID
    default_reason = "SpecInvalid"


class PlanRefusedError(EnginesmithError):
    """No target of a document can be built or served here."""

    exit_code = ExitCode.PLAN_REFUSED
    default_reason = "NoTargetFits"


class SourceError(EnginesmithError):
    """The model cannot be fetched."""

    exit_code = ExitCode.SOURCE_FAILED
    default_reason = "SourceFailed"


class ModelError(EnginesmithError):
    """The file was fetched, but it is not a model that can be used as the spec asks."""

    exit_code = ExitCode.MODEL_INVALID
    default_reason = "ModelInvalid"


class BuildError(EnginesmithError):
    """The builder refused, failed, or ran out of memory or time."""

    exit_code = ExitCode.BUILD_FAILED
    default_reason = "BuildFailed"


class BuildOutOfMemoryError(BuildError):
    """The builder was killed for memory, or an allocation failed. More memory may help."""

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
    """The engine store cannot be written, or its contents are damaged."""

    exit_code = ExitCode.STORE_FAILED
    default_reason = "StoreFailed"


class EngineRefusedError(EnginesmithError):
    """The engine does not fit the device or the library that the runtime found. It was not loaded."""

    exit_code = ExitCode.ENGINE_REFUSED
    default_reason = "EngineRefused"


class ServeError(EnginesmithError):
    """A server cannot listen or start with these options."""

    exit_code = ExitCode.SERVE_FAILED
    default_reason = "ServeFailed"


class DeviceFailedError(EngineRefusedError):
    """The device, or the CUDA context of this process, has failed. Only a new process can continue."""

    exit_code = ExitCode.DEVICE_FAILED
    default_reason = "DeviceFailed"


class InferenceError(EnginesmithError):
    """One inference failed because of the model or its inputs. The next one may succeed."""

    exit_code = ExitCode.INFERENCE_FAILED
    default_reason = "InferenceFailed"


class CancelledBuildError(EnginesmithError):
    """The user or the end of the pod stopped the work; nothing was stored."""

    exit_code = ExitCode.CANCELLED
    default_reason = "Cancelled"
