"""`python -m enginesmith_runtime.engines.nvinfer.tensorrt_rtx_parser MODEL`: runs the parser of TensorRT for RTX.

Prints one JSON line: {"version", "errors": [{"node", "op", "message"}]}. It is a separate process, because the parser
can crash. It needs no GPU and no driver.
"""

import json
import os
import sys

from enginesmith_contract.text import one_line

__all__ = ["main"]


def main(path: str) -> int:
    """Parse the model and print every node that the parser refuses. Return the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the library also prints to stdout
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    # Free the parser before its network. The other order crashes.
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse_from_file(path)
    errors = [_described(parser.get_error(number)) for number in range(parser.num_errors)]
    answers.write(json.dumps({"version": trt.__version__, "errors": errors}) + "\n")
    answers.flush()
    del parser, network
    return 0


def _described(error: object) -> dict[str, str]:
    """Return a ParserError as text. Its accessors are methods of the native class."""
    read = {name: str(getattr(error, name)()) for name in ("node_name", "node_operator", "desc")}
    words = one_line(read["desc"])
    # For an operator without an importer, the parser's description is only the failed check.
    message = "the parser has no importer for this operator" if words == "false" else words
    return {"node": read["node_name"], "op": read["node_operator"], "message": message}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
