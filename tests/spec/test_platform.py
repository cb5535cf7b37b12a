import os
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.spec.platform import Platform, acceptable, host_platform, normalised, parse_platform


class Uname(NamedTuple):
    machine: str


@pytest.mark.parametrize(
    "text, platform",
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("Linux/X86-64", Platform("linux", "amd64")),
        ("linux/amd64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("linux/arm64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm64/8", Platform("linux", "arm64")),
        ("linux/arm64/v9", Platform("linux", "arm64", "v9")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/7", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/i386", Platform("linux", "386")),
        ("linux/s390x", Platform("linux", "s390x")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("windows/amd64", Platform("windows", "amd64")),
        ("plan9/newarch", Platform("plan9", "newarch")),
        ("arm64", Platform("linux", "arm64")),
        ("armhf", Platform("linux", "arm", "v7")),
        ("x86_64", Platform("linux", "amd64")),
    ],
)
def test_a_platform_is_read_and_normalised_as_containerd_does(text: str, platform: Platform) -> None:
    assert parse_platform(text) == platform
    assert parse_platform(str(platform)) == platform


@pytest.mark.parametrize(
    "text", ["", "linux/", "/amd64", "nonsense", "linux/amd64/v1/x", "linux amd64", "linux/*", "²"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid platform"):
        parse_platform(text)


def test_an_operating_system_alone_means_this_machine_s_architecture() -> None:
    assert parse_platform("linux") == host_platform()
    assert parse_platform("macos") == host_platform()._replace(os="darwin")


@pytest.mark.parametrize(
    "machine, platform",
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("ppc64le", "linux/ppc64le"),
        ("loongarch64", "linux/loong64"),
    ],
)
def test_the_host_is_what_uname_says_in_go_s_words(
    machine: str, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: Uname(machine))
    assert str(host_platform()) == platform


@pytest.mark.parametrize(
    "wanted, order",
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/386", "386"),
        ("linux/arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v7", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v5", "arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "linux/arm64/v9.1",
            (
                "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64"
                " arm/v8 arm/v7 arm/v6 arm/v5"
            ),
        ),
        ("linux/riscv64", "riscv64"),
    ],
)
def test_lesser_variants_are_acceptable_best_first(wanted: str, order: str) -> None:
    assert [str(p) for p in acceptable(parse_platform(wanted))] == [f"linux/{word}" for word in order.split()]


@given(st.text(), st.text(), st.text())
def test_normalising_any_words_never_fails_and_is_final(os_name: str, architecture: str, variant: str) -> None:
    once = normalised(os_name, architecture, variant)
    assert acceptable(once)[0] == once
    assert normalised(*once) == once
