"""Which network addresses the pods that fetch, build and pull may connect to: the value of ENGINESMITH_ADDRESSES.

A tenant names URIs and endpoints, and a pod connects to them from inside the cluster. So a pod connects to public
addresses, and to what the administrator allows. A metadata service gives the node's account to every process, so a
range never allows one. Only an entry for exactly that address allows it.
"""

import ipaddress
from collections.abc import Iterable
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

from enginesmith_contract.record import Record

__all__ = ["METADATA_SERVICES", "PUBLIC_ONLY", "Address", "AddressRules", "address_in", "host_and_port"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_SERVICES: Final = (
    "169.254.169.254",  # Amazon, Google, Azure, OpenStack and others
    "169.254.170.2",  # tasks of Amazon ECS
    "169.254.170.23",  # pod identities of Amazon EKS
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",  # Google
    "100.100.100.200",  # Alibaba
    "168.63.129.16",  # Azure's host agent
    "192.0.0.192",  # Oracle
)
_METADATA: Final = frozenset(ipaddress.ip_address(one) for one in METADATA_SERVICES)
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
_PLAIN: Final = (ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1"))
_PORTS: Final = {"http": 80, "https": 443, "oci": 443}


class AddressRules(Record):
    """What a pod may connect to in addition to public addresses.

    Attributes:
        allowed: Ranges that are allowed although they are not public.
        denied: Ranges that are refused although they are public. They take precedence over `allowed`.
        endpoints: URLs of the administrator's own services. Their addresses are allowed on the port of the URL only.
    """

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    def why_refused(self, found: Address) -> str:
        """Return the rule that refuses an address, or "" if it is allowed. `endpoints` are not considered."""
        address = _unwrapped(found)
        if address in _METADATA:
            alone = any(address in one and one.num_addresses == 1 for one in self._networks[0])
            return "" if alone else "a metadata service, which hands out the node's account"
        if any(address in one for one in self._networks[1]):
            return "an address that the administrator denies"
        is_allowed = any(address in one for one in self._networks[0])
        return "" if is_allowed else _why_not_public(address)

    @cached_property
    def _networks(self) -> tuple[tuple[_Network, ...], tuple[_Network, ...]]:
        return _parsed(self.allowed), _parsed(self.denied)


PUBLIC_ONLY: Final = AddressRules()
"""Allows public addresses only."""


def address_in(host: str) -> Address | None:
    """Return the address of a URL's host if the host is an IP address, or None if it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def host_and_port(endpoint: str) -> tuple[str, int] | None:
    """Return host and port of a URL, or None if it has no host."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def _why_not_public(address: Address) -> str:
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if address.is_global and not address.is_multicast and not is_site_local:
        return ""
    return "not a public address: it belongs to the cluster or to its network"


def _parsed(ranges: Iterable[str]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(one, strict=False) for one in ranges)


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address that leads to it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address not in _PLAIN and any(address in one for one in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
