"""The part of TensorRT that refits, without a GPU: TensorRT for RTX has the same classes and refuses without a driver.

A plan is JSON: {"weights": [names], "refittable": bool}; a model is JSON too: {"weights": [names], "values": text}.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["create_fake_library"]


class _Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.refittable = plan["refittable"]

    def create_serialization_config(self) -> SimpleNamespace:
        flags: list[str] = []
        return SimpleNamespace(flags=flags, set_flag=flags.append)

    def serialize_with_config(self, config: SimpleNamespace) -> bytes:
        # As TensorRT does: a plan that is written again may be refitted again only where that is asked for.
        return json.dumps({**self.plan, "refittable": "INCLUDE_REFIT" in config.flags}).encode()


class _Refitter:
    def __init__(self, engine: _Engine, _log: object) -> None:
        self.engine = engine
        self.given: set[str] = set()
        self.values = ""

    def get_missing_weights(self) -> list[str]:
        return sorted(set(self.engine.plan["weights"]) - self.given)

    def refit_cuda_engine(self) -> bool:
        self.engine.plan["values"] = self.values
        return not self.get_missing_weights()


class _ParserRefitter:
    def __init__(self, refitter: _Refitter, _log: object) -> None:
        self._refitter = refitter
        self.errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: self.errors[index])

    def refit_from_file(self, path: str) -> bool:
        model = json.loads(Path(path).read_bytes())
        self._refitter.given = set(model["weights"])
        self._refitter.values = model["values"]
        if self._refitter.get_missing_weights():
            self.errors.append("Failed to refit all the weights.")
        return not self.errors


class _Runtime:
    def __init__(self, _log: object) -> None:
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        try:
            return _Engine(json.loads(plan))
        except ValueError:
            return None


def create_fake_library(logger: type, *, keeps_refit: bool) -> SimpleNamespace:
    """Return the library; `keeps_refit`: as TensorRT 10.14 and later, which can write a plan that stays refittable."""
    flags = SimpleNamespace(INCLUDE_REFIT="INCLUDE_REFIT") if keeps_refit else SimpleNamespace()
    return SimpleNamespace(
        __name__="fake_refit_library",
        ILogger=logger,
        Runtime=_Runtime,
        Refitter=_Refitter,
        OnnxParserRefitter=_ParserRefitter,
        SerializationFlag=flags,
    )
