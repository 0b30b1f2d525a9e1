"""What an administrator decides for all pods, and the variables and files by which they receive it.

| pod | public keys of engines | private key |
|---|---|---|
| preparation, init step of a server | as a variable | |
| build | as a variable | the Secret's `key.pem` as a file |
"""

from collections.abc import Mapping
from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.address_rules import PUBLIC_ONLY, AddressRules
from enginesmith_contract.provenance import BuildOrigin
from enginesmith_contract.record import Record
from enginesmith_contract.signatures import TrustedKeys
from enginesmith_operator.objects.pods import request_variable, secret_volume

__all__ = ["DEFAULT_RULES", "PodRules", "engine_keys_variable", "key_environment", "key_mounts", "key_volumes"]

_MOUNT: Final = "/etc/enginesmith/signing-key"
_VOLUME: Final = "signing-key"
_FILE: Final = "key.pem"

JsonObject = dict[str, Any]


class PodRules(Record):
    """From the operator's configuration. A change is no reason to restart a server.

    Attributes:
        allowed_plugins: digests of the plugin libraries that may be loaded; None: any.
        addresses: that pods may connect to.
        engine_keys: public keys in PEM by name; if there are any, engines need a signature of one.
        signing_secret: Secret with the private key that builders sign with; None: they do not sign.
        origin: what the operator knows of itself, for the provenance of engines.
    """

    allowed_plugins: tuple[str, ...] | None = None
    addresses: AddressRules = PUBLIC_ONLY
    engine_keys: Mapping[str, str] = {}
    signing_secret: str | None = None
    origin: BuildOrigin = BuildOrigin()


DEFAULT_RULES: Final = PodRules()


def engine_keys_variable(rules: PodRules) -> list[JsonObject]:
    """Return the variable with the public keys, if there are any."""
    keys = TrustedKeys(keys=rules.engine_keys)
    return [request_variable(environment.ENGINE_KEYS, keys)] if rules.engine_keys else []


def key_environment(rules: PodRules) -> list[JsonObject]:
    """Return the variable that says where the private key is."""
    return [] if rules.signing_secret is None else [{"name": environment.SIGNING_KEY, "value": f"{_MOUNT}/{_FILE}"}]


def key_volumes(rules: PodRules) -> list[JsonObject]:
    """Return the volume of the private key."""
    if rules.signing_secret is None:
        return []
    volume = secret_volume(_VOLUME, rules.signing_secret)
    return [volume | {"secret": volume["secret"] | {"items": [{"key": _FILE, "path": _FILE}]}}]


def key_mounts(rules: PodRules) -> list[JsonObject]:
    """Return where the private key is mounted."""
    return [] if rules.signing_secret is None else [{"name": _VOLUME, "mountPath": _MOUNT, "readOnly": True}]
