"""Limits the addresses that this process connects to. Every connection of every library is checked when it is made.

A check of the URI is not enough: a redirect changes the address, and a name may resolve to another address later.
Python raises the audit event `socket.connect` with the address for every library, so the rules are applied there. A
refused connection fails with an OSError, as with a firewall; `refusals_explained` adds the reason.
"""

import socket
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

from enginesmith_contract.address_rules import AddressRules, address_in, host_and_port
from enginesmith_contract.environment import ADDRESSES
from enginesmith_contract.errors import EnginesmithError

__all__ = ["AddressRefusedError", "check_endpoint", "limit_connections", "refusal_of_host", "refusals_explained"]

_EVENTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_EXPLAINED: Final = frozenset({"ConnectionLost", "AccessDenied"})
_REMEDY: Final = (
    "use a public address, or ask an administrator to allow this one in the operator's configuration: addresses.allowed"
)


class AddressRefusedError(PermissionError):
    """A connection that the rules do not allow."""

    def __init__(self, host: str, rule: str) -> None:
        super().__init__(f"{host} is {rule}")


class _Limits:
    """The rules of this process; None until `limit_connections`."""

    def __init__(self) -> None:
        self.rules: AddressRules | None = None
        self.refusals: list[AddressRefusedError] = []
        self._is_hooked = False

    def hold(self, rules: AddressRules | None) -> None:
        self.rules = rules
        if rules is not None and not self._is_hooked:
            # A hook cannot be removed, so without rules it allows everything.
            sys.addaudithook(self._look)
            self._is_hooked = True

    def refuse(self, host: str, rule: str) -> AddressRefusedError:
        refusal = AddressRefusedError(host, rule)
        self.refusals.append(refusal)
        return refusal

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _EVENTS or self.rules is None:
            return
        connection, destination = arguments[0], arguments[1]
        if getattr(connection, "family", None) not in _FAMILIES or not isinstance(destination, tuple):
            return
        host, port = str(destination[0]), int(destination[1])
        address = address_in(host)
        if address is None:
            # The C library resolved the name, and the chosen address is not known.
            raise self.refuse(host, "a name where an address is needed")
        rule = self.rules.why_refused(address)
        if rule and not _is_endpoint(self.rules, host, port):
            raise self.refuse(host, rule)


_LIMITS: Final = _Limits()


def limit_connections(variables: MutableMapping[str, str]) -> None:
    """Apply the rules of ENGINESMITH_ADDRESSES to this process. Without the variable, all connections are allowed.

    Raises:
        pydantic.ValidationError: The variable does not contain valid rules.
    """
    text = variables.get(ADDRESSES)
    _LIMITS.hold(AddressRules.from_json(text) if text else None)
    if text:
        # Its own download library raises no audit events.
        variables["HF_HUB_DISABLE_XET"] = "1"


def refusal_of_host(host: str, port: int) -> AddressRefusedError | None:
    """Return why an IP address as the host is refused. A proxy could connect to it instead of this process."""
    address = address_in(host)
    if _LIMITS.rules is None or address is None:
        return None
    rule = _LIMITS.rules.why_refused(address)
    return _LIMITS.refuse(host, rule) if rule and not _is_endpoint(_LIMITS.rules, host, port) else None


def check_endpoint(endpoint: str | None) -> None:
    """Refuse the URL of a service at once, because libraries retry a refused connection for half a minute.

    Raises:
        AddressRefusedError: The rules do not allow an address of the host.
    """
    place = host_and_port(endpoint) if endpoint and _LIMITS.rules is not None else None
    if place is None:
        return
    for host in sorted(_addresses(place)):
        refusal = refusal_of_host(host, place[1])
        if refusal is not None:
            raise refusal


@contextmanager
def refusals_explained(where: str, error_type: type[EnginesmithError]) -> Iterator[None]:
    """Raise the refusal of a connection instead of the library's error or its translation.

    Args:
        where: Address of the connection as the user wrote it.
        error_type: Class of the error to raise.
    """
    before = len(_LIMITS.refusals)
    try:
        yield
    except FileNotFoundError:
        # Only the caller knows whether this is an error.
        raise
    except Exception as error:
        is_other = isinstance(error, EnginesmithError) and error.reason not in _EXPLAINED
        if is_other or len(_LIMITS.refusals) == before:
            raise
        raise error_type(
            "connections to this address are refused",
            where=where,
            why=str(_LIMITS.refusals[-1]),
            remedy=_REMEDY,
            reason="AddressRefused",
        ) from error


def _is_endpoint(rules: AddressRules, host: str, port: int) -> bool:
    for endpoint in rules.endpoints:
        place = host_and_port(endpoint)
        if place is not None and place[1] == port and host in _addresses(place):
            return True
    return False


def _addresses(place: tuple[str, int]) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(one[4][0]) for one in found)
