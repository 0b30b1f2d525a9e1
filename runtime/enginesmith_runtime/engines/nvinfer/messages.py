"""Messages of the library's log, which is the only place where it gives reasons.

Its calls return None or False, and the logger gets the text. Known texts are translated into a reason and a remedy.
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

__all__ = ["MessageLog", "Translation", "create_logger", "list_reasons", "translate"]

_KEPT_MESSAGES: Final = 50

# Message of builds on a CPU, which need no driver.
_NO_DRIVER: Final = "CUDA driver version is insufficient"

# Seen in TensorRT 10.6 and TensorRT for RTX 1.7.
_CACHE_ENTRIES: Final = re.compile(r"(\d+) timing cache entries")
_TIMED: Final = "Timing Runner: "

_LOGGERS: Final[list[Any]] = []


class MessageLog(Protocol):
    """The part of Enginesmith's logger that the library does not define."""

    errors: "deque[str]"
    warnings: "deque[str]"
    cache_entries: int | None
    """Entries of the timing cache that was last read or written; None if the library has not reported it."""
    timed: int
    """Layer implementations that a builder has timed."""

    def mark(self) -> int:
        """Return the current position for `said_since`."""
        ...

    def said_since(self, mark: int) -> list[str]:
        """Return the errors and warnings since the position, oldest first, as far as they are still kept."""
        ...


class Translation(NamedTuple):
    """A CamelCase reason and a remedy for a text of the library."""

    reason: str
    remedy: str


class _Known(NamedTuple):
    fragment: str
    translation: Translation


_SAME_NAME: Final = "give dimensions of one name the same min, opt and max in spec.profiles"
_OLD_DRIVER: Final = "update the node's NVIDIA driver, or use a toolchain for an older CUDA"
_BUSY: Final = "end the process that holds the GPU, or set its compute mode to default (nvidia-smi -c 0 on the node)"
_NO_DEVICE: Final = "let the pod ask for a GPU resource such as nvidia.com/gpu"
_REBUILD: Final = "build the engine for this GPU with the installed version"

# Parts of messages, compared without case. Seen in TensorRT 10.6 and 11.4, and TensorRT for RTX 1.7.
_KNOWN: Final = (
    _Known("expecting compute", Translation("WrongDevice", _REBUILD)),
    _Known("which has compute capability", Translation("WrongDevice", "use a GPU that TensorRT for RTX supports")),
    _Known("hardware-compatible engine", Translation("WrongDevice", "use a newer GPU, or build for this one")),
    _Known("multiprocessors but the engine", Translation("TooFewMultiprocessors", _REBUILD)),
    _Known("not compatible with this version of", Translation("WrongVersion", _REBUILD)),
    _Known("Version tag does not match", Translation("WrongVersion", _REBUILD)),
    _Known("old deserialization call", Translation("WrongVersion", _REBUILD)),
    _Known("plan major version", Translation("WrongVersion", _REBUILD)),
    _Known("Platform specific tag", Translation("WrongPlatform", "build on this operating system and architecture")),
    _Known("MagicTag", Translation("NotAnEngine", "fetch the engine again; the file is damaged or something else")),
    _Known("MAGIC_TAG", Translation("NotAnEngine", "fetch the engine again; the file is damaged or something else")),
    _Known("blobSize", Translation("EngineTruncated", "fetch the engine again; the file is cut off")),
    _Known("getEngineHostCodeAllowed", Translation("HostCodeRefused", "load it through its manifest")),
    _Known("self-consistent", Translation("ProfileRefused", _SAME_NAME)),
    _Known("contradictory", Translation("ProfileRefused", _SAME_NAME)),
    _Known("optimization profile", Translation("ProfileRefused", "correct the shape ranges in spec.profiles")),
    _Known("Dimension mismatch for tensor", Translation("ProfileRefused", "correct the shape ranges in spec.profiles")),
    _Known("reshape changes volume", Translation("ProfileRefused", "give the model a shape that it can take")),
    *(
        _Known(fragment, Translation("OutOfMemory", "lower build.workspace, or use a GPU with more free memory"))
        for fragment in (
            "out of memory",
            "OutOfMemory",
            "could not be allocated",
            "insufficient memory",
            "memory allocation fail",
            # cudaErrorMemoryAllocation: there was not enough memory for a CUDA context.
            "initialization failure with error: 2",
        )
    ),
    _Known("initialization failure with error: 35", Translation("DriverFloor", _OLD_DRIVER)),
    _Known("initialization failure with error: 46", Translation("DeviceBusy", _BUSY)),
    _Known("initialization failure with error: 100", Translation("NoDevice", _NO_DEVICE)),
)


def translate(messages: Iterable[str], otherwise: Translation) -> Translation:
    """Return the translation of the first known message, compared without case, else `otherwise`."""
    for message in messages:
        said = message.casefold()
        for known in _KNOWN:
            if known.fragment.casefold() in said:
                return known.translation
    return otherwise


def list_reasons(messages: "deque[str]") -> list[str]:
    """Return the messages without duplicates, and without the message that a CPU build has no driver."""
    unique = list(dict.fromkeys(messages))
    return [message for message in unique if _NO_DRIVER not in message] or unique


def create_logger(module: Any) -> Any:
    """Return a logger of the library that keeps its last errors and warnings, oldest first (a MessageLog).

    The library uses a logger longer than the objects that it was created for, and a freed logger crashes the process.
    So loggers are never freed. Their number is the number of loaded engines.
    """

    class _Logger(module.ILogger):  # type: ignore[misc]  # the base is known at run time only
        """Keeps messages instead of printing them."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)
            self.warnings: deque[str] = deque(maxlen=_KEPT_MESSAGES)
            self.cache_entries: int | None = None
            self.timed = 0
            self._heard = 0
            self._recent: deque[tuple[int, str]] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            """Receive a message. Called from any thread."""
            if severity in {module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR}:
                self._keep(self.errors, message.strip())
            elif severity == module.ILogger.WARNING:
                self._keep(self.warnings, message.strip())
            elif severity == module.ILogger.INFO and (found := _CACHE_ENTRIES.search(message)):
                self.cache_entries = int(found[1])
            elif _TIMED in message:
                self.timed += 1

        def mark(self) -> int:
            return self._heard

        def said_since(self, mark: int) -> list[str]:
            return [message for number, message in self._recent if number > mark]

        def _keep(self, messages: "deque[str]", message: str) -> None:
            self._heard += 1
            messages.append(message)
            self._recent.append((self._heard, message))

    logger = _Logger()
    _LOGGERS.append(logger)
    return logger
