"""Whether requests and answers fit the messages that a server takes and sends.

What the model declares and the profiles allow gives a size that no message is below. One that does not fit at a
profile's min never fits, so there is nothing to build. Where only larger shapes do not fit, it is a warning.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from enginesmith_contract.profiles import Profile
from enginesmith_contract.serve_request import GRPC_MESSAGE_BYTES
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.translate import profiles
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["check_messages", "warn_of_messages"]

_MIB: Final = 1 << 20
_HEAD_BYTES: Final = 4096
"""Room for names, shapes and parameters, in the limit that is proposed."""

_STRING_HEAD_BYTES: Final = 4
"""Before each element of a BYTES tensor, which may be empty."""

_REAL_NAME: Final = re.compile(r"[A-Za-z_]\w*")
"""Exporters that know nothing of a dimension call it '?', all of them alike."""


class _Sizes(NamedTuple):
    """The least bytes of messages at one point of a profile.

    Attributes:
        request: with all inputs.
        answer: with all outputs.
        one_output: an answer with the smallest output alone, which a client may ask for.
    """

    profile: str
    point: str
    request: int
    answer: int
    one_output: int

    @property
    def refused(self) -> "_Sizes":
        """Return the sizes to refuse by: of an answer that no field can make room for, what a client can still have."""
        return self._replace(answer=self.one_output) if self.answer >= GRPC_MESSAGE_BYTES else self


def check_messages(spec: InferenceEngineSpec, facts: ModelFacts, observed: Observed) -> Iterator[Refusal]:
    """Give the messages that no server of this document can ever take or send."""
    if observed.shared_memory:
        return
    limit = _limit(spec, observed)
    for sizes in _sizes(spec, facts, "min"):
        for rule, what, size in _too_large(sizes.refused, limit):
            yield Refusal(
                rule=rule,
                found=f"profile {sizes.profile!r}: {what} has at least {size:,} bytes, at its smallest shapes too, and "
                f"spec.serving.maxMessageBytes is {limit:,}",
                wanted=_remedy(size),
            )


def warn_of_messages(spec: InferenceEngineSpec, facts: ModelFacts | None, observed: Observed) -> Iterator[str]:
    """Say which profiles allow shapes whose messages are refused."""
    if facts is None or observed.shared_memory:
        return
    limit = _limit(spec, observed)
    smallest = {sizes.profile: sizes for sizes in _sizes(spec, facts, "min")}
    for sizes in _with_seen(_sizes(spec, facts, "max"), observed):
        refused = {rule for rule, _, _ in _too_large(smallest[sizes.profile].refused, limit)}
        for rule, what, size in _too_large(sizes, limit):
            if rule not in refused:
                yield (
                    f"spec.serving.maxMessageBytes: {what} of profile {sizes.profile!r} at max has {size:,} bytes, "
                    f"more than {limit:,}: the server refuses it; {_remedy(size)}, or lower the profile's max."
                )


def _limit(spec: InferenceEngineSpec, observed: Observed) -> int:
    return max(int(spec.serving.max_message_bytes), observed.max_message_bytes)


def _too_large(sizes: _Sizes, limit: int) -> Iterator[tuple[str, str, int]]:
    if sizes.answer > limit:
        yield "AnswerTooLarge", "an answer", sizes.answer
    if sizes.request > limit:
        yield "RequestTooLarge", "a request", sizes.request


def _remedy(size: int) -> str:
    if size + _HEAD_BYTES >= GRPC_MESSAGE_BYTES:
        return "a message of gRPC has less than 2Gi: make the tensors smaller in the model"
    return f"raise it to {math.ceil((size + _HEAD_BYTES) / _MIB)}Mi"


def _with_seen(found: Iterator[_Sizes], observed: Observed) -> Iterator[_Sizes]:
    """Take the size that the preparation saw where it is larger: a model need not declare its outputs' shapes."""
    exercises = observed.preparation.exercises if observed.preparation is not None else ()
    seen = {(one.profile, one.point): one.answer_bytes or 0 for one in exercises}
    for sizes in found:
        yield sizes._replace(answer=max(sizes.answer, seen.get((sizes.profile, sizes.point), 0)))


def _sizes(spec: InferenceEngineSpec, facts: ModelFacts, point: str) -> Iterator[_Sizes]:
    for profile in profiles(spec) or (Profile(),):
        shapes = {tensor.name: _shape(tensor, profile, point) for tensor in facts.inputs}
        symbols = _symbols(facts, shapes)
        outputs = [_bytes(tensor, _resolved(tensor, symbols)) for tensor in facts.outputs]
        yield _Sizes(
            profile.name,
            point,
            request=sum(_bytes(tensor, shapes[tensor.name]) for tensor in facts.inputs),
            answer=sum(outputs),
            one_output=min(outputs, default=0),
        )


def _shape(tensor: TensorSpec, profile: Profile, point: str) -> tuple[int, ...]:
    given = profile.inputs.get(tensor.name)
    if given is None:
        return tensor.shape
    return given.min if point == "min" else given.max


def _symbols(facts: ModelFacts, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the value of each name of a dimension that has one value only."""
    values: dict[str, set[int]] = {}
    for tensor in facts.inputs:
        for symbol, size in zip(tensor.symbols, shapes[tensor.name], strict=False):
            if symbol is not None and _REAL_NAME.fullmatch(symbol):
                values.setdefault(symbol, set()).add(size)
    return {symbol: next(iter(sizes)) for symbol, sizes in values.items() if len(sizes) == 1}


def _resolved(tensor: TensorSpec, symbols: Mapping[str, int]) -> tuple[int, ...]:
    names = tensor.symbols or (None,) * len(tensor.shape)
    return tuple(
        symbols.get(name, size) if size < 0 and name is not None else size
        for size, name in zip(tensor.shape, names, strict=False)
    )


def _bytes(tensor: TensorSpec, shape: tuple[int, ...]) -> int:
    """Return the tensor's bytes; 0 where a dimension is not known, for it may be 0."""
    if any(size < 0 for size in shape):
        return 0
    each = _STRING_HEAD_BYTES if tensor.dtype is DType.BYTES else tensor.dtype.item_bytes or 0
    return math.prod(shape) * each
