"""How soon the other replica of the operator works after the leader is killed with SIGKILL, or suspended.

Usage: python -m benchmarks.operator_failover [--rounds 3]

The time is from the signal to the first write for an InferenceEngine created at that moment, by the API server's audit
log.
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
