"""How soon the operator's other replica works when the leading one is killed with SIGKILL, and when it stands still.

Usage: python -m benchmarks.operator_failover [--rounds 3]

From the signal until the first write for an InferenceEngine that is made just then, by the API server's audit log.
"""

import argparse
import signal

from benchmarks.measure import spread, write_record
from tests.cluster.engines import new_namespace, new_tenant
from tests.cluster.failover import lose_leader
from tests.cluster.installation import installed_operator, load_images, open_cluster

_ROUNDS = 3


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    rounds = parser.parse_args().rounds
    cluster = open_cluster()
    seconds: dict[str, dict[str, float]] = {}
    with installed_operator(cluster, load_images(cluster), alone=True):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            found = []
            for _ in range(rounds):
                with new_namespace(cluster) as namespace, new_tenant(cluster, namespace) as tenant:
                    takeover = lose_leader(tenant, number, "follower")
                foreign = [one.text for one in takeover.writes if one.pod != takeover.taken]
                assert not foreign, foreign
                found.append(round(takeover.seconds, 1))
            seconds[number.name] = spread(found)
    write_record("operator_failover", {"rounds": rounds, "seconds until the other replica writes": seconds})


if __name__ == "__main__":
    main()
