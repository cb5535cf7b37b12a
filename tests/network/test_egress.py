"""--egress: which rules there are, and what is said of others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.network.egress import merge_egress, parse_egress


@pytest.mark.parametrize(
    "rule",
    [
        *(
            "none",
            "*",
            "*:443",
            "api.example.org",
            "api.example.org:443",
            "*.example.org:1-65535",
            "localhost",
            "a_b.c",
        ),
        *("192.0.2.1", "10.0.0.0/8", "10.0.0.0/8:5432", "0.0.0.0/0", "192.0.2.1:1", "2001:db8::1", "2001:db8::/32"),
        *("[2001:db8::1]:443", "[2001:db8::/32]:1-2", "[::1]", "example.org."),
    ],
)
def test_a_rule_is_kept_as_it_is(rule: str) -> None:
    assert parse_egress(rule) == [rule]


def test_commas_separate_rules_and_several_options_add_up() -> None:
    assert parse_egress("API.example.org:443, 10.0.0.0/8:5432") == ["api.example.org:443", "10.0.0.0/8:5432"]
    assert merge_egress([["a"], ["b", "a"]]) == ["a", "b"]
    assert merge_egress([]) is None
    assert merge_egress([["none"]]) == []
    with pytest.raises(InvalidInput, match="--egress none allows nothing"):
        merge_egress([["none"], ["a"]])


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("", "'' is no host name"),
        ("a b", "'a b' is no host name"),
        ("-a.example", "is no host name"),
        ("*.*.example", "is no host name"),
        ("a..b", "is no host name"),
        ("a" * 64, "is no host name"),
        ("a." * 127 + "b", "is no host name"),
        ("a:", "'' is no port"),
        ("a:0", "'0' is no port"),
        ("a:65536", "'65536' is no port"),
        ("a:http", "'http' is no port"),
        ("a:9-8", "the range of ports ends before it begins"),
        ("10.0.0.1/8", "has bits set beyond its prefix"),
        ("10.0.0.0/33", "a prefix has 0 to 32 bits"),
        ("10.0.0", "'10.0.0' is no address"),
        ("2001:db8::/129", "a prefix has 0 to 128 bits"),
        ("[2001:db8::1", "[IPv6 address]:PORT is expected"),
        ("[192.0.2.1]:80", "[IPv6 address]:PORT is expected"),
        ("none:80", "none has no port"),
    ],
)
def test_what_is_no_rule_is_said(rule: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_egress(rule)
    assert problem in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_rules_or_invalid(text: str) -> None:
    try:
        assert parse_egress(text)
    except InvalidInput:
        pass
