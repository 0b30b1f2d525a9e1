"""One question before any library sees an engine: does it fit this device and this toolchain?

The answer comes from the version matrix, as a sentence that a person can act on. TensorRT itself would say "None" and
leave the reason in a log, or load a plan that later hangs.
"""

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.matrix.portability import fits
from enginesmith_contract.verdicts import Verdict

__all__ = ["refuse_unless_fits"]


def refuse_unless_fits(manifest: Manifest, device: Hardware, version: str) -> None:
    """Return where no rule says no.

    Args:
        manifest: of the engine to load.
        device: what the device says of itself.
        version: the installed library's, in full.

    Raises:
        EngineRefusedError: every rule that refuses, with what was found and what would make it a yes.
    """
    refusals = [answer for answer in fits(manifest, device, version) if answer.verdict is Verdict.NO]
    if not refusals:
        return
    raise EngineRefusedError(
        "the engine does not fit this machine",
        where=f"engine {manifest.engine_key[:12]}",
        why="; ".join(answer.found for answer in refusals),
        remedy="; ".join(answer.wanted for answer in refusals if answer.wanted),
        reason=refusals[0].rule,
    )
