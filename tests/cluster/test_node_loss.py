"""A node falls silent, or loses its power: its pod moves, and clients of the Service are answered again."""

from pathlib import Path

import pytest
from tests.cluster.engines import Tenant
from tests.cluster.node_loss import ENGINE_NAME, lose_node, serve_on_two_nodes

# Alone, since pods of other tests may be on the node that is lost.
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("sole_operator", "hardware")]


@pytest.mark.parametrize("how", ["stop", pytest.param("kill", marks=pytest.mark.extended)])
def test_the_pod_of_a_lost_node_moves_to_another_one_that_answers(tenant: Tenant, how: str, tmp_path: Path) -> None:
    serve_on_two_nodes(tenant)
    loss = lose_node(tenant, how, tmp_path / "answers")
    assert loss.taken != loss.lost
    tenant.until(
        lambda: tenant.target(ENGINE_NAME, "cpu").get("nodes") == [loss.taken], "the status names the new node"
    )
    tenant.until_ready(ENGINE_NAME)
