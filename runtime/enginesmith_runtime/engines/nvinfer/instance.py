"""Runs a plan: one stream, one arena of inputs and outputs, one context for each profile.

    infer ─ form of request known? ─ yes ─> values to pinned memory ─> graph, or copies + enqueue + copies ─> wait
                    └─ no ─> bind the context, compute a Run, cache it

A form that repeats is captured as a CUDA graph. A request allocates nothing on the device and does not wait for the
stream of another instance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import numpy as np
from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, EngineRefusedError, EnginesmithError, InferenceError
from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import OUT_OF_MEMORY, CudaCallError, EnqueueRefusedError
from enginesmith_runtime.engines.cuda.graphs import GraphCache
from enginesmith_runtime.engines.cuda.memory import CudaMemory
from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance
from enginesmith_runtime.engines.nvinfer.buffers import Arena, Slot
from enginesmith_runtime.engines.nvinfer.contexts import (
    ActivationMemory,
    Library,
    ProfileContext,
    create_context,
    measure,
    needed_activations,
)
from enginesmith_runtime.engines.nvinfer.forms import FormBuilder, feed
from enginesmith_runtime.engines.nvinfer.options import ExecutionOptions
from enginesmith_runtime.engines.nvinfer.runs import Run, create_enqueue

__all__ = ["NvInferInstance", "Owner"]

# CU_STREAM_NON_BLOCKING of the driver API; pycuda has no name for it. The default stream would wait for all other
# streams.
_NON_BLOCKING: Final = 1
# CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING.
_BLOCKING_EVENT: Final = 1 | 2

_OPT: Final = 1
_MAX: Final = 2

# Number of cached forms. Each is small, but a client's region can have many addresses, so the number is bounded.
_KEPT_RUNS: Final = 512

_NOWHERE: Final[Mapping[str, DeviceArray]] = {}


class Owner(Protocol):
    """The engine that an instance belongs to.

    Attributes:
        gpu: The device. The instance always calls its `bindings`.
        fault: Failure of the device; None while it works.
    """

    gpu: Gpu
    library: Library
    memory: CudaMemory
    options: ExecutionOptions
    fault: DeviceFailedError | None

    def refuse_if_broken(self) -> None:
        """Raise the failure of the device, if there is one."""

    def settle(self, error: CudaCallError | EnqueueRefusedError, now: int) -> EnginesmithError:
        """Return the error for the caller of a failed call, and store it if the device has failed."""
        ...


class NvInferInstance(Instance):
    """One stream with its contexts, buffers and graphs."""

    def __init__(self, engine: Owner) -> None:
        """Allocate all memory of the instance, and run every profile once at opt. The context must be current.

        Raises:
            EngineRefusedError: `OutOfMemory`, or the engine does not run with its own shapes.
            DeviceFailedError: The device failed.
        """
        self._engine = engine
        self._library = engine.library
        self._gpu = engine.gpu
        self._thread = engine.gpu.thread
        self._input_names = tuple(spec.name for spec in engine.library.inputs)
        self._runs: dict[tuple[Any, ...], Run] = {}
        self._contexts: list[ProfileContext] = []
        self._enqueues: list[Callable[[Run], None]] = []
        self._activations: ActivationMemory | None = None
        self._arena: Arena | None = None
        self._slots: dict[str, Slot] = {}
        self._graphs: GraphCache | None = None
        self._stream_owner: Any = None
        self._event: Any = None
        self._clock = 0
        self._open = True
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        engine, driver, cuda = self._engine, self._gpu.driver, self._gpu.bindings
        try:
            self._stream_owner = driver.Stream(_NON_BLOCKING)
            self._stream = cuda.CUstream(self._stream_owner.handle)
            self._bind_calls()
            self._reads_values = any(self._library.is_on_host(name) for name in self._input_names)
            size = needed_activations(self._library)
            if size is not None:
                self._activations = ActivationMemory(engine.memory, size)
            handle = int(self._stream)
            for profile in self._library.profiles:
                context = create_context(self._library, profile, self._activations, handle)
                self._contexts.append(context)
                self._enqueues.append(create_enqueue(self._gpu, context.native.execute_async_v3, self._stream))
            self._gpu.check("cuStreamSynchronize", cuda.cuStreamSynchronize(self._stream))
            self._take_arena()
            self._graphs = GraphCache(self._gpu, self._stream, engine.options.cuda_graphs)
            self._warm(self._graphs)
        except (CudaCallError, driver.Error) as error:
            raise self._refusal(error) from error
        except InferenceError as error:
            raise _unopened(error) from error

    @override
    def infer(  # noqa: C901 - this is the hot path, and each call takes time
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray] = _NOWHERE,
    ) -> dict[str, Array | DeviceArray]:
        # This hot path is written for speed: it adds at most about 20 us to the time of the GPU.
        if not self._open:
            raise RuntimeError("the instance is closed")
        if self._engine.fault is not None:
            self._engine.refuse_if_broken()
        key = (
            profile,
            *outputs,
            *[
                value.shape if type(value) is not DeviceArray else value
                for value in [inputs[name] for name in self._input_names]
            ],
        )
        if into:
            key = (*key, *into.items())
        try:
            if not self._thread.entered:
                self._gpu.enter()
            run = self._runs.get(key)
            if run is None:
                run = self._prepare_run(key, inputs, profile, outputs, into)
            for name, view in run.feeds:
                value = inputs[name]
                if value is not view:
                    feed(name, view, value)
            if run.graph is None:
                return self._run_plain(run)
            self._clock = run.used = self._clock + 1
            code = self._launch(run.graph, self._stream)[0]
            if code is not self._success:
                _fail("cuGraphLaunch", code)
            self._wait()
            return dict(run.results)
        except (CudaCallError, EnqueueRefusedError) as error:
            raise self._settle(error) from error

    @override
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        if not self._open:
            raise RuntimeError("the instance is closed")
        return self._slots[name].view(shape)

    @override
    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._engine.fault is not None:
            # Freeing would fail or block. The end of the process frees the memory.
            return
        with self._gpu.current():
            self._runs.clear()
            if self._graphs is not None:
                self._graphs.clear()
            if self._event is not None:
                self._gpu.bindings.cuEventDestroy(self._event)
            self._enqueues.clear()
            self._contexts.clear()
            self._slots = {}
            if self._arena is not None:
                self._arena.free()
            if self._activations is not None:
                self._activations.free()
            self._stream_owner = None

    def _bind_calls(self) -> None:
        """Store the functions of the hot path in attributes, because a lookup costs as much as the call."""
        cuda = self._gpu.bindings
        self._success = cuda.CUresult.CUDA_SUCCESS
        self._launch = cuda.cuGraphLaunch
        self._synchronize = cuda.cuStreamSynchronize
        if not self._engine.options.spin:
            self._event = self._gpu.check("cuEventCreate", cuda.cuEventCreate(_BLOCKING_EVENT))

    def _wait(self) -> None:
        """Wait until the stream is idle. Other Python threads can run meanwhile."""
        if self._event is not None:
            cuda = self._gpu.bindings
            self._gpu.check("cuEventRecord", cuda.cuEventRecord(self._event, self._stream))
            self._gpu.check("cuEventSynchronize", cuda.cuEventSynchronize(self._event))
            return
        code = self._synchronize(self._stream)[0]
        if code is not self._success:
            _fail("cuStreamSynchronize", code)

    def _take_arena(self) -> None:
        largest: dict[str, int] = {}
        tuned: dict[str, int] = {}
        for profile, context in enumerate(self._contexts):
            for point, sizes in ((_OPT, tuned), (_MAX, largest)):
                for name, size in measure(self._library, context, profile, point).items():
                    sizes[name] = max(sizes.get(name, 0), size)
        # A data-dependent output can be larger at opt than the library's bound at max.
        largest = {name: max(size, tuned[name]) for name, size in largest.items()}
        specs = (*self._library.inputs, *self._library.outputs)
        limit = self._engine.options.pinned_memory_limit
        self._arena = Arena(self._engine.memory, specs, largest, tuned, limit)
        self._slots = self._arena.slots
        self._forms = FormBuilder(self._gpu, self._library, self._slots)

    def _warm(self, graphs: GraphCache) -> None:
        """Run every profile at opt, so that kernels are loaded and the last memory is allocated, and capture it."""
        outputs = tuple(spec.name for spec in self._library.outputs)
        for profile, context in enumerate(self._contexts):
            inputs: dict[str, Array | DeviceArray] = {}
            for name in self._input_names:
                view = self.staging(name, self._library.shape_at(name, profile, _OPT))
                view[...] = 0
                if self._library.is_on_host(name):
                    view[...] = np.array(self._library.values_at(name, profile, _OPT), view.dtype).reshape(view.shape)
                inputs[name] = view
            key = (profile, *outputs, *[inputs[name].shape for name in self._input_names])
            try:
                run = self._prepare_run(key, inputs, profile, outputs, _NOWHERE)
                self._run_plain(run)
                if graphs.is_on and run.can_record:
                    self._record(run, graphs)
            except (CudaCallError, EnqueueRefusedError) as error:
                raise self._settle(error) from error
            # If a profile cannot be captured at opt, it has a layer that can never be captured.
            context.can_record = run.can_record

    def _run_plain(self, run: Run) -> dict[str, Array | DeviceArray]:
        """Run without a graph, and capture one if the form is frequent enough."""
        context = self._contexts[run.profile]
        if context.bound is not run:
            context.bind(run)
        enqueue = self._enqueues[run.profile]
        try:
            enqueue(run)
        except EnqueueRefusedError:
            self._refuse_too_large_output(context)
            raise
        self._wait()
        run.seen += 1
        answer = self._collect_open(run, context) if run.open_outputs else dict(run.results)
        if self._graphs is not None and self._graphs.wants(run):
            self._record(run, self._graphs)
        return answer

    def _record(self, run: Run, graphs: GraphCache) -> None:
        """Capture the run that has just ended. Its context is still bound to it."""
        enqueue = self._enqueues[run.profile]
        self._clock += 1
        graphs.record(run, lambda: enqueue(run), self._clock)
        if run.graph is None:
            # TensorRT does not document the context's state after a failed capture.
            self._contexts[run.profile].bound = None
            # Clear the messages of the failed capture, so that they are not reported as the reason of the next failure.
            self._library.take_messages()

    def _prepare_run(
        self,
        key: tuple[Any, ...],
        inputs: Mapping[str, Array | DeviceArray],
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray],
    ) -> Run:
        """Compute the run of a new form. With shape tensors each request is a new form, because their values matter."""
        index = min(profile, len(self._contexts) - 1)
        run = self._forms.build(self._contexts[index], index, inputs, outputs, into)
        if self._reads_values:
            return run
        if len(self._runs) >= _KEPT_RUNS:
            self._forget_one()
        self._runs[key] = run
        return run

    def _forget_one(self) -> None:
        for key, run in self._runs.items():
            if run.graph is None:
                del self._runs[key]
                return

    def _collect_open(self, run: Run, context: ProfileContext) -> dict[str, Array | DeviceArray]:
        """Copy the outputs whose shapes the run determined, and return all outputs."""
        answer = dict(run.results)
        for name in run.open_outputs:
            shape = context.allocators[name].shape
            copy, answer[name] = self._forms.place_open(name, shape, run.open_into.get(name))
            if copy is not None:
                code = copy.call(copy.target, copy.source, copy.size, self._stream)
                self._gpu.check(copy.call.__name__, code)
        self._wait()
        return {name: answer[name] for name in run.order}

    def _refuse_too_large_output(self, context: ProfileContext) -> None:
        for name, allocator in context.allocators.items():
            size, allocator.refused = allocator.refused, 0
            if not size:
                continue
            context.bound = None
            self._wait()
            raise InferenceError(
                "the output is larger than the instance's memory for it",
                where=name,
                why=" | ".join(
                    (
                        f"it has {size} bytes, and there are {self._slots[name].capacity}",
                        *self._library.take_messages(),
                    )
                ),
                remedy="send a smaller batch, or raise backendOptions.pinnedMemoryLimit",
                reason="OutputTooLarge",
            )

    def _settle(self, error: CudaCallError | EnqueueRefusedError) -> EnginesmithError:
        """Synchronise the stream, call the driver again, and return the resulting error."""
        for context in self._contexts:
            context.bound = None
        now = int(self._synchronize(self._stream)[0])
        return self._engine.settle(error, now)

    def _refusal(self, error: Exception) -> EnginesmithError:
        """Return the error of an instance that failed to open because of a driver error."""
        now = int(self._gpu.bindings.cuCtxSynchronize()[0])
        if not isinstance(error, CudaCallError):
            starved = isinstance(error, self._gpu.driver.MemoryError)
            error = CudaCallError(str(error), OUT_OF_MEMORY if starved else now)
        verdict = self._engine.settle(error, now)
        return verdict if isinstance(verdict, DeviceFailedError) else _unopened(verdict)


def _unopened(error: EnginesmithError) -> EngineRefusedError:
    return EngineRefusedError(
        "an instance cannot be opened",
        where=error.where,
        why=": ".join(part for part in (error.what, error.why) if part),
        remedy="lower serving.instances, narrow the profiles, or use a GPU with more memory"
        if error.reason == "OutOfMemory"
        else error.remedy,
        reason=error.reason if error.reason == "OutOfMemory" else "WarmUpFailed",
    )


def _fail(call: str, code: Any) -> NoReturn:
    raise CudaCallError(call, int(code))
