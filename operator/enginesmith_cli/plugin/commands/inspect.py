"""`kubectl enginesmith inspect`: what was built of an engine and how it was verified, as far as the cluster knows."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.plugin.objects import Objects

__all__ = ["add_arguments", "inspected_lines", "run"]

Json = dict[str, Any]

_EXAMPLES: Final = """examples:
  kubectl enginesmith inspect resnet50
  kubectl enginesmith inspect resnet50 -o json

It reads the objects of the cluster. The whole manifest of an engine is in the store: with the store's account in the
environment, `enginesmith inspect KEY --store URI` prints it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.plugin.kubectl import add_connection_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("name", metavar="NAME", help="InferenceEngine")
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    add_connection_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of the model and of each engine."""
    from enginesmith_cli.plugin.kubectl import Kubectl
    from enginesmith_cli.plugin.objects import Objects
    from enginesmith_cli.plugin.reading import KINDS, engine_name, say_refused

    name = engine_name(arguments.name)
    objects = Objects(say_refused(Kubectl.from_arguments(arguments).get(*KINDS)).items)
    engine = objects.named("InferenceEngine", name)[0]
    if arguments.output == "json":
        print(json.dumps(_document(engine, objects), indent=2, ensure_ascii=False))
    else:
        print("\n".join(inspected_lines(engine, objects)))
    return ExitCode.OK


def inspected_lines(engine: Json, objects: "Objects") -> Iterator[str]:
    """Yield what is known of an InferenceEngine's model and engines."""
    found = _document(engine, objects)
    model, preparation = found["model"], found["preparation"]
    yield f"model          {model.get('uri') or (engine['spec'].get('model') or {}).get('uri', '')}"
    yield f"digest         {model.get('digest') or 'not known yet'}"
    if preparation:
        yield f"preparation    {preparation.get('phase', '')} {preparation.get('key', '')}".rstrip()
        facts = preparation.get("facts") or {}
        for end in ("inputs", "outputs"):
            yield from (f"{end[:-1]:<15}{_tensor(one)}" for one in facts.get(end) or ())
    for one in found["engines"]:
        yield ""
        yield from _engine_lines(one)
    if not found["engines"]:
        yield "engines        none is planned yet"


def _document(engine: Json, objects: "Objects") -> Json:
    from enginesmith_cli.plugin.objects import name_of

    status = engine.get("status") or {}
    builds = {name_of(one): one for one in objects.owned(engine, "EngineBuild")}
    engines = []
    for target in status.get("targets") or ():
        for one in target.get("engines") or ():
            build = builds.get(str(one.get("build")), {})
            request = (build.get("spec") or {}).get("request") or {}
            engines.append(
                {
                    "target": target.get("name"),
                    **one,
                    "toolchain": target.get("toolchain") or {},
                    "store": request.get("store"),
                    "result": (build.get("status") or {}).get("result") or {},
                }
            )
    return {"model": status.get("model") or {}, "preparation": status.get("preparation") or {}, "engines": engines}


def _tensor(spec: Json) -> str:
    symbols = spec.get("symbols") or ()
    shape = [
        str(symbols[place] or "?") if size == -1 and place < len(symbols) else str(size)
        for place, size in enumerate(spec.get("shape") or ())
    ]
    return f"{spec.get('name')} {spec.get('dtype')} [{', '.join(shape)}]"


def _engine_lines(one: Json) -> Iterator[str]:
    toolchain, result = one["toolchain"], one["result"]
    states = (("serving", "serving"), ("servingQuick", "its quick version serves"), ("stored", "stored"))
    state = [word for key, word in states if one.get(key)]
    yield f"engine         {one.get('key') or 'key not known yet'} ({', '.join(state) or 'not built'})"
    hardware = " ".join(str(one[key]) for key in ("product", "migProfile", "arch") if one.get(key))
    yield f"target         {one['target']} on {hardware}"
    cuda = f" for CUDA {toolchain['cuda']}" if toolchain.get("cuda") else ""
    yield f"toolchain      {toolchain.get('backend', 'not chosen')} {toolchain.get('version', '')}{cuda}".rstrip()
    if one.get("digest"):
        yield f"file           {one['digest']}"
    if result.get("sizeBytes") is not None:
        yield f"size           {result['sizeBytes']:,} bytes".replace(",", " ")
    if result.get("verification"):
        judged = f" on {result['judgedOn']}" if result.get("judgedOn") else ""
        difference = f", difference {result['difference']:.3g}" if result.get("difference") is not None else ""
        yield f"verification   {result['verification']}{judged}{difference}"
    for profile, seconds in (result.get("latencySeconds") or {}).items():
        yield f"latency        {1000 * seconds:.3g} ms (profile {profile})"
    if one.get("key") and one.get("store"):
        yield f"manifest       enginesmith inspect {one['key'][:12]} --store {one['store']}"
