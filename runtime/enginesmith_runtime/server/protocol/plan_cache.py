"""Cache of plans for repeated requests. A lookup does not parse or split the request.

Clients often send the same model, names, datatypes and shapes with other tensor bytes. If two requests have the same
length and differ only in their raw contents and their id, they have the same plan and the same positions of tensors. A
comparison of some hundred bytes is enough to find this out.
"""

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from enginesmith_contract.tensors import DType
from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.protocol.tensor_decoding import check_values
from enginesmith_runtime.server.protocol.wire import SplitRequest, id_prefix
from enginesmith_runtime.server.transport.interface import Body

__all__ = ["Layout", "PlanCache"]

_CACHED_PLANS: Final = 512
_CACHED_HEAD_BYTES: Final = 2048
"""Bounds of the cache, which limit it to a few megabytes."""

_CACHED_LENGTHS: Final = 256
_LAYOUTS_OF_A_LENGTH: Final = 4
"""Bounds of the layouts: the number of lengths, and the number of newest layouts of each length."""


class Layout:
    """Layout of a repeated request: its plan, the positions of its tensors, and all other bytes.

    Attributes:
        plan: Plan of every request that has these other bytes.
        is_brief: Whether the elements of the request's tensors are read only when it runs.
    """

    __slots__ = ("_bools", "_id", "_id_prefix", "_kept", "_tensors", "is_brief", "plan")

    def __init__(self, plan: RequestPlan, data: Body, starts: Sequence[int], request_id: slice | None = None) -> None:
        self.plan = plan
        self._tensors = tuple(
            (header.spec.name, header.shape, header.spec.dtype.numpy, start)
            for header, start in zip(plan.in_message, starts, strict=True)
        )
        self._bools = tuple(header.spec for header in plan.in_message if header.spec.dtype is DType.BOOL)
        # The response cache needs the digest of the tensors.
        self.is_brief = not self._bools and plan.model.cache is None
        varies = [(start, start + header.size) for header, start in zip(plan.in_message, starts, strict=True)]
        self._id = request_id
        self._id_prefix = b""
        if request_id is not None:
            varies.append((request_id.start, request_id.stop))
            self._id_prefix = id_prefix(request_id.stop - request_id.start)
        edges = [0, *(edge for pair in sorted(varies) for edge in pair), len(data)]
        self._kept = tuple(
            (begin, end, bytes(data[begin:end]))
            for begin, end in zip(edges[::2], edges[1::2], strict=True)
            if begin < end
        )

    def fits(self, data: Body) -> bool:
        """Return whether a request of the same length has this layout."""
        for begin, end, kept in self._kept:
            if data[begin:end] != kept:
                return False
        # Ids of other lengths are checked when the request is parsed.
        return self._id is None or bytes(data[self._id]).isascii()

    def read_id(self, data: Body) -> bytes:
        """Return the serialised field `id` of the response, or b"" if the request has no id."""
        return self._id_prefix + bytes(data[self._id]) if self._id is not None else b""

    def read_inputs(self, data: Body) -> dict[str, Array]:
        """Return a request's inputs as views of its bytes; see `read_raw`.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the bytes are not values of the datatype.
        """
        inputs: dict[str, Array] = {
            name: np.ndarray(shape, dtype, data, start) for name, shape, dtype, start in self._tensors
        }
        for spec in self._bools:
            check_values(inputs[spec.name], spec)
        return inputs


class PlanCache:
    """Plans of repeated requests. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[bytes, RequestPlan] = {}
        self._layouts: dict[int, tuple[Layout, ...]] = {}

    def find(self, data: Body) -> Layout | None:
        """Return the layout of an earlier request that differs only in its raw contents and its id."""
        for layout in self._layouts.get(len(data), ()):
            if layout.fits(data):
                return layout
        return None

    def find_plan(self, head: bytes) -> RequestPlan | None:
        """Return the plan of a request with these bytes in addition to its id and its raw contents."""
        # Without raw contents these bytes are the whole request, and hashing megabytes would not help.
        return self._plans.get(head) if len(head) <= _CACHED_HEAD_BYTES else None

    def keep(self, head: bytes, plan: RequestPlan) -> None:
        """Keep a plan. The oldest one is removed if the cache is full."""
        if len(head) > _CACHED_HEAD_BYTES:
            return
        with self._lock:
            if len(self._plans) >= _CACHED_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[head] = plan

    def keep_layout(self, request: SplitRequest, plan: RequestPlan, data: Body) -> None:
        """Keep the layout of a request with a cached plan, if every input has a fixed size in bytes."""
        sizes = [header.size for header in plan.in_message]
        if len(request.head) > _CACHED_HEAD_BYTES or 0 in sizes or [len(one) for one in request.raw] != sizes:
            return
        begin = _address(memoryview(data))
        id_at: slice | None = None
        if request.request_id is not None:
            id_begin = _address(request.request_id) - begin
            id_at = slice(id_begin, id_begin + len(request.request_id))
        layout = Layout(plan, data, [_address(one) - begin for one in request.raw], id_at)
        with self._lock:
            others = self._layouts.get(len(data), ())
            if not others and len(self._layouts) >= _CACHED_LENGTHS:
                del self._layouts[next(iter(self._layouts))]
            self._layouts[len(data)] = (layout, *others)[:_LAYOUTS_OF_A_LENGTH]


def _address(view: memoryview) -> int:
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address
