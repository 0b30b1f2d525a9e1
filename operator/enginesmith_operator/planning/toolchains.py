"""Which toolchain builds and serves a group of equal devices, and why that one.

A toolchain is chosen once and pinned: a newer one shows as UpdateAvailable and changes nothing that serves, unless
`toolchain.update` is `auto`. Among those in the user's range the one that runs on most of the group's nodes wins, the
newest of several: one node with an old driver is a reason to take an older CUDA build, not to lose the node.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from packaging.version import InvalidVersion, Version

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.matrix.query import MatrixQuery
from enginesmith_contract.matrix.rules import check_all
from enginesmith_contract.providers import list_providers
from enginesmith_contract.verdicts import RuleAnswer, Verdict
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.api.toolchain import ToolchainSpec, ToolchainUpdate
from enginesmith_operator.planning.candidates import Candidate
from enginesmith_operator.planning.policies import forbids_toolchain
from enginesmith_operator.planning.refusals import NodeRefusal, Refusal
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["Choice", "choose_toolchain", "toolchain_text", "usable_toolchains"]

_PINNED: Final = "pinned"


class Choice(NamedTuple):
    """A toolchain, and what it leaves out.

    Attributes:
        why: a clause for the plan's reader.
        fits: candidates that it runs on.
        refusals: of the candidates that it does not run on.
        doubts: what no source tells, one clause each; the pod finds out.
        newer: one that would be chosen were none pinned; None: there is none.
    """

    toolchain: Toolchain
    why: str
    fits: tuple[Candidate, ...]
    refusals: tuple[NodeRefusal, ...]
    doubts: tuple[str, ...]
    newer: Toolchain | None = None


def toolchain_text(toolchain: Toolchain) -> str:
    """Return a toolchain in a few words: `tensorrt 10.13.3.9 (CUDA 12.9)`."""
    detail = f"CUDA {toolchain.cuda}" if toolchain.cuda else toolchain.provider
    return f"{toolchain.backend} {toolchain.version}" + (f" ({detail})" if detail else "")


def usable_toolchains(
    target: TargetSpec, spec: InferenceEngineSpec, observed: Observed
) -> tuple[Toolchain, ...] | Refusal:
    """Return the toolchains of the target's backend that the user's ranges admit, the newest first, or why none."""
    same = [one for one in observed.toolchains if one.backend is target.backend]
    provider = target.provider_or_default
    if provider is not None:
        same = [one for one in same if (one.provider or "cpu") == provider]
    name = f"{target.backend}" + (f" with provider {provider}" if provider else "")
    if not same:
        return Refusal(
            rule="NoToolchain", found=f"no toolchain for {name} {_place(observed)}", wanted=_remedy(target, observed)
        )
    usable = [one for one in same if _in_range(one, spec)]
    if not usable:
        found = f"{', '.join(toolchain_text(one) for one in _newest_first(same))} {_place(observed)}"
        return Refusal(rule="ToolchainOutOfRange", found=found, wanted=_wanted_range(spec.toolchain))
    forbidden = [forbids_toolchain(one, observed.policies) for one in usable]
    allowed = [one for one, policy in zip(usable, forbidden, strict=True) if policy is None]
    if not allowed and forbidden[0] is not None:
        return forbidden[0].refusal()
    return _newest_first(allowed)


def _wanted_range(wanted: ToolchainSpec) -> str:
    if wanted == ToolchainSpec(update=wanted.update):
        return f"the builder supports tensorrt {wanted.tensorrt}; spec.toolchain.tensorrt can ask for another one"
    return f"spec.toolchain asks for tensorrt {wanted.tensorrt}" + (f" and CUDA {wanted.cuda}" if wanted.cuda else "")


def choose_toolchain(
    target: TargetSpec, spec: InferenceEngineSpec, group: tuple[Candidate, ...], observed: Observed
) -> Choice | tuple[NodeRefusal, ...]:
    """Return the toolchain for a group of candidates, or the reasons of the one that comes closest."""
    usable = usable_toolchains(target, spec, observed)
    pinned = _usable_pin(target, spec, observed)
    if isinstance(pinned, Refusal):
        usable, pinned = pinned, None
    kept = None if pinned is None else _try(pinned, spec, group, observed)
    if isinstance(usable, Refusal):
        if kept is not None and kept.fits:
            return kept._replace(why=_PINNED)
        return tuple(NodeRefusal(node=one.node, refusal=usable) for one in group)
    choices = [_try(toolchain, spec, group, observed) for toolchain in usable]
    # The newest comes first, and max keeps the first of equals.
    best = max(choices, key=lambda choice: len(choice.fits))
    if not best.fits and (kept is None or not kept.fits):
        return min(choices, key=lambda choice: len(choice.refusals)).refusals
    best = best._replace(why=_why(best, choices, len(group)))
    if kept is None or kept.toolchain == best.toolchain or spec.toolchain.update is ToolchainUpdate.AUTO:
        return best
    if not kept.fits:
        return best._replace(why=f"the pinned {toolchain_text(kept.toolchain)} runs on none of these nodes; {best.why}")
    newer = best.toolchain if best.fits and _is_newer(best.toolchain, kept.toolchain) else None
    return kept._replace(why=_PINNED, newer=newer)


def _usable_pin(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> Toolchain | Refusal | None:
    """Return the target's pinned toolchain, unless the spec asks for another one.

    It stays although the catalog has dropped it, or has another image for it: what serves is not stopped by a catalog.
    Nor is it replaced because a policy changed: its owner chooses when, until then a refusal is the answer.
    """
    pinned = observed.pinned.get(target.name)
    if pinned is None or pinned.backend is not target.backend or not _in_range(pinned, spec):
        return None
    provider = target.provider_or_default
    if provider is not None and (pinned.provider or "cpu") != provider:
        return None
    forbidden = forbids_toolchain(pinned, observed.policies)
    if forbidden is None:
        return pinned
    is_used = any(one.target == target.name for one in observed.deployments)
    return forbidden.refusal() if is_used and spec.toolchain.update is ToolchainUpdate.MANUAL else None


def _try(toolchain: Toolchain, spec: InferenceEngineSpec, group: tuple[Candidate, ...], observed: Observed) -> Choice:
    answers: dict[Hardware, tuple[RuleAnswer, ...]] = {}
    fits: list[Candidate] = []
    refusals: list[NodeRefusal] = []
    doubts: dict[str, None] = {}
    for one in group:
        platform = _platform_refusal(toolchain, one.hardware, observed)
        if platform is not None:
            refusals.append(NodeRefusal(node=one.node, refusal=platform))
            continue
        if one.hardware not in answers:
            answers[one.hardware] = _ask(toolchain, one.hardware, spec, observed)
        said_no = [answer for answer in answers[one.hardware] if answer.verdict is Verdict.NO]
        refusals += [NodeRefusal(node=one.node, refusal=_refusal(answer, toolchain)) for answer in said_no]
        if not said_no:
            fits.append(one)
            unknown = [answer for answer in answers[one.hardware] if answer.verdict is Verdict.UNKNOWN]
            doubts |= {f"{answer.rule}: {answer.found}": None for answer in unknown}
    return Choice(toolchain, "", tuple(fits), tuple(refusals), tuple(doubts))


def _platform_refusal(toolchain: Toolchain, hardware: Hardware, observed: Observed) -> Refusal | None:
    platforms, wanted = observed.platforms.get(toolchain.name), f"{hardware.os}/{hardware.arch}"
    if platforms is None or wanted in platforms:
        return None
    found = f"the image of {toolchain.name} is for {', '.join(platforms)}, the node is {wanted}"
    return Refusal(rule="Platform", found=found, wanted=f"add a toolchain for {wanted} to the catalog")


def _ask(
    toolchain: Toolchain, hardware: Hardware, spec: InferenceEngineSpec, observed: Observed
) -> tuple[RuleAnswer, ...]:
    query = MatrixQuery(
        toolchain=toolchain,
        hardware=hardware,
        precision=spec.precision.default,
        hardware_compatibility=spec.build.hardware_compatibility.contract_value,
        version_compatible=spec.build.version_compatible,
    )
    return check_all(observed.matrix, query)


def _refusal(answer: RuleAnswer, toolchain: Toolchain) -> Refusal:
    return Refusal(rule=answer.rule, found=f"{toolchain_text(toolchain)}: {answer.found}", wanted=answer.wanted)


def _why(best: Choice, choices: list[Choice], nodes: int) -> str:
    newer = [choice for choice in choices if _version(choice.toolchain) > _version(best.toolchain)]
    if newer:
        return (
            f"runs on {len(best.fits)} of {nodes} nodes, {toolchain_text(newer[0].toolchain)} on {len(newer[0].fits)}"
        )
    return "the only one in range" if len(choices) == 1 else f"the newest of {len(choices)} in range"


def _in_range(toolchain: Toolchain, spec: InferenceEngineSpec) -> bool:
    if not traits(toolchain.backend).version_ranges:
        return True
    return spec.toolchain.accepts_tensorrt(toolchain.version) and spec.toolchain.accepts_cuda(toolchain.cuda)


def _newest_first(toolchains: Iterable[Toolchain]) -> tuple[Toolchain, ...]:
    by_name = sorted(toolchains, key=lambda one: one.name)
    return tuple(sorted(by_name, key=_version, reverse=True))


def _version(toolchain: Toolchain) -> tuple[Version, Version]:
    return _parsed(toolchain.version), _parsed(toolchain.cuda or "0")


def _is_newer(one: Toolchain, pinned: Toolchain) -> bool:
    """Whether it is a later version, or the same in another image; the same image by another name is no change."""
    if _version(one) == _version(pinned):
        return one.image != pinned.image
    return _version(one) > _version(pinned)


def _parsed(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _place(observed: Observed) -> str:
    if observed.local:
        return "is installed here"
    told = observed.unreadable_toolchains
    # One may be the very entry that is asked for.
    unread = f", and {len(told)} of its entries cannot be read: {told[0]}" if told else ""
    return f"is in the toolchain catalog{unread}"


def _remedy(target: TargetSpec, observed: Observed) -> str:
    if not observed.local:
        return "add one to the catalog"
    if traits(target.backend).builds_on_gpu:
        return "run enginesmith doctor, which prints the command that installs one for this GPU and driver"
    wheel = traits(target.backend).install
    if wheel is None:
        known = {provider.name: provider.wheel for provider in list_providers()}
        wheel = known.get(target.provider_or_default or "")
        if wheel is None:
            return f"known providers are {', '.join(sorted(known))}"
    return f"pip install {wheel}"
