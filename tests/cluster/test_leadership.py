"""Of two replicas one writes: the other one follows when it is killed, and when it merely stands still for a while."""

import signal

import pytest
from tests.cluster.engines import Tenant
from tests.cluster.failover import lose_leader

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("sole_operator")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "standing still"])
def test_a_leader_that_is_lost_is_followed_by_the_other_replica_which_alone_writes_from_then_on(
    tenant: Tenant, number: signal.Signals
) -> None:
    takeover = lose_leader(tenant, number, "follower")
    assert takeover.taken != takeover.lost
    assert {one.pod for one in takeover.writes} == {takeover.taken}
