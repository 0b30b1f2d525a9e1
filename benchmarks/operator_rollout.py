"""The effect of a rollout on clients: requests, errors and the longest time without a response.

Usage: python -m benchmarks.operator_rollout

Three changes of the spec while a GPU is free, and both choices of `rollout.whenFull` on a node whose only GPU is in
use. The client asks 60 times a second over one connection, without retries.
"""

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.measure import write_record
from tests.cluster.engines import new_namespace, new_tenant
from tests.cluster.installation import hardware_to_oneself, installed_operator, load_images, open_cluster
from tests.cluster.rollouts import change_three_times, make_room, wait_for_a_gpu
from tests.cluster.traffic import Traffic

_SCENES = {
    "three changes, a GPU is free": change_three_times,
    "whenFull: wait, another GPU comes": wait_for_a_gpu,
    "whenFull: replace, there with a build and back": make_room,
}


def _figures(traffic: Traffic) -> dict[str, object]:
    return {
        "requests": len(traffic.answers()),
        "requests per second": round(traffic.per_second(), 1),
        "engines": len(traffic.engines()),
        "errors": dict(Counter(one.code for one in traffic.errors())),
        "longest time without an answer, seconds": round(traffic.gap_seconds(), 2),
        "time without an answer at each switch, seconds": [round(one, 2) for one in traffic.switch_seconds()],
    }


def main() -> None:
    """Measure, print, keep the record."""
    cluster = open_cluster()
    images = load_images(cluster)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (scene, play) in enumerate(_SCENES.items()):
            with (
                installed_operator(cluster, images),
                hardware_to_oneself(cluster),
                new_namespace(cluster) as namespace,
                new_tenant(cluster, namespace) as tenant,
            ):
                figures[scene] = _figures(play(tenant, Path(folder) / str(number)).traffic)
    write_record("operator_rollout", figures)


if __name__ == "__main__":
    main()
