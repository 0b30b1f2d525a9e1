"""An engine takes another one's place on a real cluster, under steady requests over one connection.

On a node with two GPUs the new one starts beside the old one. With one GPU it waits, or one replica makes room, as
`rollout.whenFull` says: `benchmarks/operator_rollout.py` keeps how long nobody answers then.
"""

from functools import partial
from pathlib import Path

import pytest
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.rollouts import (
    ENGINE_NAME,
    NEXT,
    TARGET,
    Rollout,
    answer_on,
    apply,
    change_three_times,
    make_room,
    roll_out,
    serve,
    target,
    wait_for_a_gpu,
)
from tests.cluster.traffic import steady_traffic

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.store_layout import blob_name, engine_pointer

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator", "hardware")]


def test_three_changes_of_the_spec_lose_no_request_and_each_switch_shows(tenant: Tenant, tmp_path: Path) -> None:
    seen = change_three_times(tenant, tmp_path / "answers")
    _tell(seen)
    assert seen.traffic.lost() == []
    assert len(set(seen.keys)) == 4
    assert seen.traffic.engines() == list(seen.keys)


@pytest.mark.extended
def test_without_a_free_gpu_the_next_engine_waits_and_goes_on_when_there_is_one(tenant: Tenant, tmp_path: Path) -> None:
    seen = wait_for_a_gpu(tenant, tmp_path / "answers")
    _tell(seen)
    old, new = seen.keys
    assert (seen.waiting["reason"], seen.waiting["serving"], seen.waiting["desired"]) == ("NoFreeGPU", [old], [new])
    assert "rollout.whenFull: replace" in seen.waiting["message"]
    assert seen.traffic.engines() == [old, new]
    assert seen.traffic.lost() == []


def test_without_a_free_gpu_a_replica_makes_room_where_it_is_asked_to(tenant: Tenant, tmp_path: Path) -> None:
    seen = make_room(tenant, tmp_path / "answers")
    _tell(seen)
    old, new, back = seen.keys
    assert old == back != new
    assert seen.traffic.engines() == [old, new, old]
    # While nobody serves, nothing but that is said.
    assert {one.code for one in seen.traffic.lost()} <= {"UNAVAILABLE"}
    assert {"MadeRoom", "Replacing"} <= {event["reason"] for event in tenant.events()}


def test_an_engine_that_its_pod_refuses_gives_way_to_the_one_that_served_and_is_not_tried_again(
    tenant: Tenant, tmp_path: Path
) -> None:
    first = serve(tenant)
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, tmp_path / "answers") as traffic:
        answer_on(tenant, traffic, 1)
        second = roll_out(tenant, traffic, precision="fp16")
        _damage(tenant, first)
        apply(tenant)
        refused = tenant.until(partial(_rolled_back, tenant), "it goes back")
        behind, generation = tenant.condition(ENGINE_NAME, "UpToDate"), _generation(tenant)
        # What somebody deletes is repaired: one more pass has gone by then.
        tenant.kubectl("delete", "service", f"{ENGINE_NAME}-{TARGET}")
        tenant.until(lambda: f"{ENGINE_NAME}-{TARGET}" in tenant.kubectl("get", "services", "-o=name"), "it is there")
        assert _generation(tenant) == generation
        third = roll_out(tenant, traffic, **NEXT)
    assert [(one["key"], one["reason"], one["node"]) for one in refused["rejected"]] == [(first, "Tampered", "gpu-l4")]
    assert (refused["serving"], refused["desired"]) == ([second], [first])
    assert first[:20] in refused["message"]
    assert "not what was built" in refused["message"]
    assert (behind["status"], behind["reason"]) == ("False", "RolledBack")
    assert traffic.engines() == [first, second, third]
    assert traffic.lost() == []
    assert not target(tenant).get("rejected")


def _tell(seen: Rollout) -> None:
    traffic = seen.traffic
    gaps = ", ".join(f"{seconds:.2f}" for seconds in traffic.switch_seconds())
    told = (
        f"{len(traffic.answers())} requests, {len(traffic.errors())} errors, at each switch {gaps} s without an answer"
    )
    print(told)  # noqa: T201 - shows the cost in the test's output


def _damage(tenant: Tenant, key: str) -> None:
    """Cut the last byte off an engine in the store."""
    files = tenant.cluster.files()
    store = f"engines/{tenant.namespace}"
    manifest = Manifest.from_json(files.cat_file(f"{store}/{engine_pointer(key)}"))
    blob = f"{store}/{blob_name(manifest.files[0].digest)}"
    files.pipe_file(blob, files.cat_file(blob)[:-1])


def _rolled_back(tenant: Tenant) -> Document | None:
    """Return the target's status once one pod of the earlier engine serves and no other is left."""
    seen = target(tenant)
    return seen if (seen.get("reason"), seen.get("phase"), _pods(tenant)) == ("RolledBack", "Serving", 1) else None


def _pods(tenant: Tenant) -> int:
    return len(tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"])


def _generation(tenant: Tenant) -> int:
    (deployment,) = tenant.get("deployments")["items"]
    return int(deployment["metadata"]["generation"])
