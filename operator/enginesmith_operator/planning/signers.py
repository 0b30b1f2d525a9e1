"""Whose signature a model needs: the administrator's trusted keys, as far as every policy allows them. Pure."""

from collections.abc import Iterator, Mapping

from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.patterns import matches_any
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["check_signers", "signers_of"]


def signers_of(spec: InferenceEngineSpec, observed: Observed) -> Mapping[str, str] | None:
    """Return the keys of which one must have signed the model, in PEM by name; None: no signature is looked for."""
    if observed.model_keys is None or (spec.model.signature is None and not observed.signature_required):
        return None
    allowed = [one.spec.model_signers for one in observed.policies if one.spec.model_signers is not None]
    return {
        name: pem for name, pem in observed.model_keys.items() if all(matches_any(name, names) for names in allowed)
    }


def check_signers(spec: InferenceEngineSpec, observed: Observed) -> Iterator[Refusal]:
    """Yield why no signature of the model would be accepted."""
    if signers_of(spec, observed) == {}:
        named = ", ".join(sorted(observed.model_keys or {})) or "none"
        yield Refusal(
            rule="NoTrustedKey",
            found=f"spec.model.signature is set, and no key may sign the model (trusted keys: {named})",
            wanted="ask the administrator to add the public key of the model's owner, or to change the policy",
        )
