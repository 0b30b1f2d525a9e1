"""ONNX Runtime alone in a loop: what a server could reach if everything but the inference were free.

Usage: python -m benchmarks.serving.peers.bare_loop MODEL.onnx BATCH SECONDS SHAPE...; prints inferences a second.
"""

import sys
import time

import numpy as np
from benchmarks.serving.models import open_session


def main() -> None:
    """Measure one thread's loop."""
    session = open_session(sys.argv[1])
    batch, seconds, shape = int(sys.argv[2]), float(sys.argv[3]), [int(value) for value in sys.argv[4:]]
    feed = {session.get_inputs()[0].name: np.random.default_rng(0).random((batch, *shape), np.float32)}
    session.run(None, feed)
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        session.run(None, feed)
        count += batch
    print(count / (now - began))


if __name__ == "__main__":
    main()
