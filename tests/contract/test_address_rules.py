"""Which addresses a pod may connect to."""

import ipaddress

import pytest

from enginesmith_contract.address_rules import METADATA_SERVICES, AddressRules, host_and_port


@pytest.mark.parametrize(
    ("address", "want_rule"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("::1", "loopback"),
        ("169.254.7.7", "link-local"),
        ("fe80::1", "link-local"),
        ("10.96.0.1", "not a public address"),
        ("172.20.0.1", "not a public address"),
        ("192.168.1.1", "not a public address"),
        ("100.64.0.1", "not a public address"),
        ("fd12::1", "not a public address"),
        ("0.1.2.3", "not a public address"),
        ("::", "not a public address"),
        ("fec0::1", "not a public address"),
        ("::10.96.0.1", "not a public address"),
        ("::a9fe:a9fe", "metadata"),
        ("224.0.0.251", "not a public address"),
        ("255.255.255.255", "not a public address"),
        ("::ffff:10.96.0.1", "not a public address"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata service"),
        ("64:ff9b::a9fe:a9fe", "metadata service"),
        ("2002:a9fe:a9fe::1", "metadata service"),
        *((address, "metadata service") for address in METADATA_SERVICES),
    ],
)
def test_an_address_that_is_not_public_is_refused_by_a_rule(address: str, want_rule: str) -> None:
    assert want_rule in AddressRules().why_refused(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_allowed_unless_the_administrator_denies_it(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert AddressRules().why_refused(found) == ""
    everything = AddressRules(allowed=("0.0.0.0/0",), denied=("0.0.0.0/0", "::/0"))
    assert "the administrator denies" in everything.why_refused(found)


@pytest.mark.parametrize("address", ["10.243.0.1", "127.0.0.1", "169.254.7.7", "fd12::1", "::ffff:10.243.0.1"])
def test_a_range_that_the_administrator_allows_is_allowed(address: str) -> None:
    rules = AddressRules(allowed=("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "fd00::/8"))
    assert rules.why_refused(ipaddress.ip_address(address)) == ""


@pytest.mark.parametrize("address", METADATA_SERVICES)
def test_only_an_entry_of_its_own_allows_a_metadata_service(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert "metadata" in AddressRules(allowed=("0.0.0.0/0", "::/0")).why_refused(found)
    assert AddressRules(allowed=(f"{address}/{found.max_prefixlen}",)).why_refused(found) == ""


@pytest.mark.parametrize(
    ("endpoint", "want"),
    [
        ("http://minio.storage.svc:9000/path", ("minio.storage.svc", 9000)),
        ("https://s3.example", ("s3.example", 443)),
        ("http://[fd12::1]", ("fd12::1", 80)),
        ("https://registry.example/engines", ("registry.example", 443)),
        ("s3.example", None),
        ("http://s3.example:many", None),
    ],
)
def test_host_and_port_of_an_endpoint(endpoint: str, want: tuple[str, int] | None) -> None:
    assert host_and_port(endpoint) == want
