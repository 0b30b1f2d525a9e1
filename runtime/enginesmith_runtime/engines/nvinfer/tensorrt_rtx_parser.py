"""`python -m enginesmith_runtime.engines.nvinfer.tensorrt_rtx_parser MODEL`: what the parser of TensorRT for RTX says.

Prints one JSON line: {"version", "errors": [{"node", "op", "message"}]}. A process of its own, since the parser can
take its process along. It needs no GPU and no driver.
"""

import json
import os
import sys

from enginesmith_contract.text import one_line

__all__ = ["main"]


def main(path: str) -> int:
    """Parse the model and print every node that the parser refuses; returns the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the library prints where it likes
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    # The parser must not outlive its network: that crashes.
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse_from_file(path)
    errors = [_described(parser.get_error(number)) for number in range(parser.num_errors)]
    answers.write(json.dumps({"version": trt.__version__, "errors": errors}) + "\n")
    answers.flush()
    del parser, network
    return 0


def _described(error: object) -> dict[str, str]:
    """Return a ParserError as plain words; its accessors are methods of the native class."""
    read = {name: str(getattr(error, name)()) for name in ("node_name", "node_operator", "desc")}
    words = one_line(read["desc"])
    # For an operator that it has no importer for, the parser's description is the failed check itself.
    message = "the parser has no importer for this operator" if words == "false" else words
    return {"node": read["node_name"], "op": read["node_operator"], "message": message}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
