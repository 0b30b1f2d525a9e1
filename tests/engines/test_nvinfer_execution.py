"""Pools, graphs and output allocators of the TensorRT backends, on fakes of CUDA and of the library.

What they compute on a real GPU, and how fast, is in the records under docs/gpu.
"""

import threading

import numpy as np
import pytest
from tests.engines.nvinfer_bench import I64, MakeBench, check_answer, doubling, nonzero, reshaping, rows_of

from enginesmith_contract.errors import InferenceError


def test_every_profile_computes_what_it_should_and_the_opt_shapes_run_as_graphs_from_the_start(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        assert len(bench.device.graphs) == 2
        for start in range(3):
            check_answer(instance, 2, start)
            check_answer(instance, 16, start, profile=1)
        assert bench.device.calls["cuGraphLaunch"] == 6
        check_answer(instance, 5)
        check_answer(instance, 2)


def test_a_form_is_recorded_when_it_comes_again_and_the_graph_gives_the_same_answers(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        for turn in range(5):
            check_answer(instance, 3, turn)
            check_answer(instance, 4, 10 * turn)
        assert len(bench.device.graphs) == 4
        assert bench.device.calls["cuGraphLaunch"] == 2 * 3


def test_a_request_takes_no_memory_and_the_address_of_its_data_does_not_matter(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        for rows in range(1, 9):
            for _ in range(2):
                check_answer(instance, rows)
        before = bench.memory_events()
        for turn in range(20):
            for rows in range(1, 9):
                check_answer(instance, rows, turn)
        assert bench.memory_events() == before


def test_the_graphs_of_an_instance_are_bounded_and_the_least_used_gives_way(make_bench: MakeBench) -> None:
    bench = make_bench(doubling(), cudaGraphs="3")
    with bench.engine.open_instance() as instance:
        for _ in range(2):
            check_answer(instance, 3)
        assert len(bench.device.graphs) == 3
        check_answer(instance, 2)
        for _ in range(2):
            check_answer(instance, 4)
        assert len(bench.device.graphs) == 3
        launched = bench.device.calls["cuGraphLaunch"]
        check_answer(instance, 2)
        check_answer(instance, 4)
        check_answer(instance, 3)
        assert bench.device.calls["cuGraphLaunch"] == launched + 3
        check_answer(instance, 16, profile=1)
        assert bench.device.calls["cuGraphLaunch"] == launched + 3, "the second profile's graph was the least used"


def test_more_forms_than_graphs_do_not_record_at_every_request(make_bench: MakeBench) -> None:
    bench = make_bench(doubling(), cudaGraphs="2")
    with bench.engine.open_instance() as instance:
        for _ in range(50):
            for rows in range(3, 9):
                check_answer(instance, rows)
        assert bench.device.calls["cuGraphInstantiate"] < 300 / 4


@pytest.mark.parametrize("options", [{"cudaGraphs": "0"}, {"spin": "false"}, {"cudaGraphs": "0", "spin": "false"}])
def test_without_graphs_or_without_spinning_the_answers_are_the_same(
    make_bench: MakeBench, options: dict[str, str]
) -> None:
    bench = make_bench(doubling(), **options)
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            check_answer(instance, 2, turn)
            check_answer(instance, 3, turn)
        assert bool(bench.device.graphs) == ("cudaGraphs" not in options)


def test_a_form_that_cannot_be_recorded_is_run_plainly_and_not_tried_again(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    bench.native.refuses_capture = True
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            check_answer(instance, 2, turn)
            check_answer(instance, 3, turn)
        assert bench.device.calls["cuStreamBeginCapture"] == 2, "once a profile, at its opt"
        assert not bench.device.graphs


def test_a_bound_context_is_not_told_its_shapes_again(make_bench: MakeBench) -> None:
    bench = make_bench(doubling(), cudaGraphs="0")
    with bench.engine.open_instance() as instance:
        told = bench.native.calls["set_input_shape"]
        for turn in range(3):
            check_answer(instance, 3, turn)
        assert bench.native.calls["set_input_shape"] == told + 1


def test_forms_that_take_turns_in_one_context_do_not_get_each_other_s_shapes(make_bench: MakeBench) -> None:
    bench = make_bench(doubling(), cudaGraphs="0")
    with bench.engine.open_instance() as instance:
        for turn in range(3):
            check_answer(instance, 8, 100 * turn)
            check_answer(instance, 3, 100 * turn)


def test_outputs_come_in_the_order_asked_and_hold_until_the_next_inference(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        for _ in range(3):
            first = instance.infer({"x": rows_of(2)}, profile=0, outputs=("total", "y"))
        assert list(first) == ["total", "y"]
        np.testing.assert_array_equal(first["y"], 2 * rows_of(2))
        second = instance.infer({"x": rows_of(2, 50)}, profile=0, outputs=("total", "y"))
        np.testing.assert_array_equal(second["y"], 2 * rows_of(2, 50))
        assert np.shares_memory(first["y"], second["y"]), "an answer was copied"
        assert list(instance.infer({"x": rows_of(2)}, profile=0, outputs=["y"])) == ["y"]


def test_what_was_staged_is_read_in_place(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            staged = instance.staging("x", (3, 4))
            assert staged is instance.staging("x", (3, 4))
            staged[...] = rows_of(3, turn)
            answer = instance.infer({"x": staged}, profile=0, outputs=("y",))
            np.testing.assert_array_equal(answer["y"], rows_of(3, turn) * 2)
        with pytest.raises(InferenceError) as refusal:
            instance.staging("x", (33, 4))
        assert refusal.value.reason == "RequestTooLarge"


def test_a_batch_of_none_is_answered(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        for _ in range(3):
            answer = instance.infer({"x": rows_of(0)}, profile=0, outputs=("y", "total"))
            assert (answer["y"].shape, answer["total"].shape) == ((0, 4), (0,))


def test_an_output_whose_shape_depends_on_the_data_has_its_true_shape(make_bench: MakeBench) -> None:
    bench = make_bench(nonzero())
    with bench.engine.open_instance() as instance:
        before = bench.memory_events()
        for values in ([0, 1, 2, 0], [0, 0, 0, 0], [5, 5, 5, 5], [1], [0, 3] * 8):
            x = np.array(values, np.float32)
            answer = instance.infer({"x": x}, profile=0, outputs=("y", "where"))
            assert list(answer) == ["y", "where"]
            np.testing.assert_array_equal(answer["where"], np.flatnonzero(x))
            np.testing.assert_array_equal(answer["y"], -x)
        assert bench.memory_events() == before
        assert not bench.device.graphs


def test_an_output_larger_than_the_library_s_bound_is_refused_and_the_next_request_is_served(
    make_bench: MakeBench,
) -> None:
    network = nonzero()
    network.bounds = {"where": 256}
    network.profiles = ({"x": ((1,), (4,), (64,))},)
    bench = make_bench(network)
    with bench.engine.open_instance() as instance:
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": np.ones(64, np.float32)}, profile=0, outputs=("where",))
        assert refusal.value.reason == "OutputTooLarge"
        answer = instance.infer({"x": np.ones(3, np.float32)}, profile=0, outputs=("where",))
        np.testing.assert_array_equal(answer["where"], [0, 1, 2])


def test_the_values_of_a_shape_tensor_are_read_at_every_request(make_bench: MakeBench) -> None:
    bench = make_bench(reshaping())
    x = np.arange(12, dtype=np.float32)
    with bench.engine.open_instance() as instance:
        for shape in ((3, 4), (2, 6), (3, 4), (4, 3)):
            answer = instance.infer({"x": x, "shape": np.array(shape, I64)}, profile=0, outputs=("y",))
            np.testing.assert_array_equal(answer["y"], x.reshape(shape))
        assert not bench.device.graphs


def test_instances_keep_out_of_each_other_s_way(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as one, bench.engine.open_instance() as other:
        for turn in range(3):
            check_answer(one, 3, turn)
            check_answer(other, 3, 100 + turn)
        assert len(bench.device.streams) == 2
        # A device-wide wait would hold one instance up for the other.
        assert bench.device.calls["cuCtxSynchronize"] == 0
        assert bench.device.calls["mem_alloc"] == 4


def test_a_call_from_another_thread_enters_the_context_once(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        check_answer(instance, 2)
        entered = bench.device.calls["cuCtxSetCurrent"]

        def check_answers() -> None:
            for _ in range(5):
                check_answer(instance, 2)

        threads = [threading.Thread(target=check_answers) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        assert bench.device.calls["cuCtxSetCurrent"] == entered + 2
    assert bench.device.pushed == 0


def test_closing_gives_everything_back(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    instance = bench.engine.open_instance()
    check_answer(instance, 3)
    held = bench.engine.device_memory
    assert held.contexts > 0
    assert held.buffers == held.pinned > 0
    instance.close()
    instance.close()
    assert not bench.device.memory
    assert not bench.device.graphs
    left = bench.engine.device_memory
    assert (left.contexts, left.buffers, left.pinned) == (0, 0, 0)
    bench.engine.close()
    bench.engine.close()
    assert bench.device.calls["release"] == 1
    with pytest.raises(RuntimeError):
        check_answer(instance, 3)
