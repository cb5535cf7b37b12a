"""Egress rules: what the user may write, and what it allows."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.egress import parse_block, parse_rule, parse_rules


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


@pytest.mark.parametrize(
    "rule, address, port, allowed",
    [
        ("10.0.0.0/8:5432", "10.255.0.1", 5432, True),
        ("10.0.0.0/8:5432", "10.255.0.1", 5433, False),
        ("10.0.0.0/8:5432", "11.0.0.1", 5432, False),
        ("10.0.0.0/8", "10.0.0.1", 1, True),
        ("10.0.0.0/8", "10.0.0.1", 0, True),  # echo
        ("10.0.0.0/8:443", "10.0.0.1", 0, False),  # a rule about a port says nothing of echo
        ("0.0.0.0/0", "203.0.113.9", 80, True),
        ("0.0.0.0/0", "2001:db8::1", 80, False),
        ("203.0.113.9", "203.0.113.9", 80, True),
        ("203.0.113.9", "203.0.113.8", 80, False),
        ("203.0.113.9/32:80", "203.0.113.9", 80, True),
        ("203.0.113.9:8000-8010", "203.0.113.9", 8010, True),
        ("203.0.113.9:8000-8010", "203.0.113.9", 8011, False),
        ("[2001:db8::1]:443", "2001:db8::1", 443, True),
        ("[2001:db8::1]:443", "2001:db8::1", 80, False),
        ("[2001:db8::/32]:443", "2001:db8:ffff::1", 443, True),
        ("2001:db8::/32", "2001:db8:ffff::1", 443, True),
        ("2001:db8::1", "2001:db8::1", 443, True),
        ("2001:db8::1:443", "2001:db8::1", 443, False),  # without brackets, 443 is part of the address
        ("::/0", "2001:db8::1", 443, True),
        ("*", "203.0.113.9", 80, True),
        ("*:443", "2001:db8::1", 443, True),
        ("*:443", "2001:db8::1", 80, False),
        ("none", "203.0.113.9", 80, False),
    ],
)
def test_rule_about_addresses(rule: str, address: str, port: int, allowed: bool) -> None:
    assert parse_rules([rule]).allow(packed(address), port, ()) is allowed


@pytest.mark.parametrize(
    "rule, name, matches",
    [
        ("api.example.org", "api.example.org", True),
        ("API.Example.org.", "api.example.org", True),
        ("api.example.org", "example.org", False),
        ("api.example.org", "x.api.example.org", False),
        ("*.example.org", "api.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*", "whatever.test", True),
        ("10.0.0.0/8", "api.example.org", False),
        ("none", "api.example.org", False),
    ],
)
def test_rule_about_names(rule: str, name: str, matches: bool) -> None:
    rules = parse_rules([rule, "other.test:22"])
    assert rules.name(name) is matches
    if rule != "*":
        assert rules.allow(packed("203.0.113.9"), 443, (name,)) is matches
        assert not rules.allow(packed("203.0.113.9"), 443, ())


def test_any_of_several_rules_allows() -> None:
    rules = parse_rules(["api.example.org:443", "10.0.0.0/8:5432"])
    assert rules.allow(packed("10.1.1.1"), 5432, ())
    assert rules.allow(packed("203.0.113.9"), 443, ("cdn.test", "api.example.org"))
    assert not rules.allow(packed("203.0.113.9"), 80, ("api.example.org",))
    assert not rules.allow(packed("203.0.113.9"), 443, ("cdn.test",))


@pytest.mark.parametrize("texts", [[], ["none"], [" none "]])
def test_no_rules_allow_nothing(texts: list[str]) -> None:
    rules = parse_rules(texts)
    assert not rules.allow(packed("203.0.113.9"), 443, ("api.example.org",))
    assert not rules.name("api.example.org")


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "expected NAME"),
        (":443", "expected NAME"),
        ("*.", "expected NAME"),
        ("a..b", "expected NAME"),
        ("-a.test", "expected NAME"),
        ("*a.test", "expected NAME"),
        ("a.*.test", "expected NAME"),
        ("http://a.test", "is not a port"),
        ("x" * 64, "expected NAME"),
        (".".join(["x" * 60] * 5), "expected NAME"),
        ("bücher.test", "xn--"),
        ("a.test:", "is not a port"),
        ("a.test:0", "is not a port"),
        ("a.test:65536", "is not a port"),
        ("a.test:+80", "is not a port"),
        ("a.test:٨٠", "is not a port"),
        ("a.test:90-80", "ends before it begins"),
        ("10.0.0.0/33", "0 to 32 bits"),
        ("10.0.0.0/", "0 to 32 bits"),
        ("10.0.0.0/+8", "0 to 32 bits"),
        ("10.0.0.1/8", "beyond its prefix"),
        ("10.0.0", "not an address"),
        ("010.0.0.1", "not an address"),
        ("[2001:db8::1", "expected [IPv6"),
        ("[10.0.0.1]:80", "expected [IPv6"),
        ("[2001:db8::1]80", "expected [IPv6"),
        ("2001:db8::/129", "0 to 128 bits"),
        ("2001:db8:::1", "not an address"),
    ],
)
def test_what_is_no_rule_is_told(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_rule(text)
    assert complaint in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_a_value_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except ValueError:
        return
    assert rule.block or rule.name or text.strip().startswith("*")


@given(st.binary(min_size=4, max_size=4), st.integers(0, 32))
def test_block_holds_its_own_addresses(address: bytes, bits: int) -> None:
    base = int.from_bytes(address, "big") >> (32 - bits) << (32 - bits)
    block = parse_block(f"{socket.inet_ntoa(base.to_bytes(4, 'big'))}/{bits}")
    assert block.holds(address)
    outside = base ^ (1 << (32 - bits)) if bits else None
    assert outside is None or not block.holds(outside.to_bytes(4, "big"))
