"""info --security: what the kernel's settings mean, and that what is said of this machine is so."""

import json
import os
from pathlib import Path

import pytest

from fuse import landlock as of_the_server
from rootless.engine.info_security import SETTINGS, Setting, judge
from rootless.linux import landlock
from tests.support.account import Installation

NUMBER = Setting("kernel/number", "it is so", 1, 2)


def test_a_setting_is_as_it_should_be_or_what_to_type_is_said() -> None:
    for value, holds in (("0", False), ("1", True), ("2", True), ("3", False), ("-1", False)):
        finding = judge(NUMBER, value)
        assert finding is not None
        assert finding.holds == holds
        assert finding.remedy == ("" if holds else "have root run: sysctl -w kernel.number=1")
        assert ("not so" in finding.value) == (not holds)


@pytest.mark.parametrize("value", ["", "text", "1 2"])
def test_what_the_kernel_does_not_have_is_no_finding(value: str) -> None:
    assert judge(NUMBER, value) is None


def test_both_programs_see_the_same_landlock() -> None:
    assert landlock.version() == of_the_server.version()


@pytest.mark.kernel
def test_it_is_said_of_this_machine(rootless: Installation) -> None:
    said = json.loads(rootless.run("info", "--security", "--format", "json").stdout)["Security"]
    found = {finding["Name"]: finding for finding in said}
    assert found["User namespace"]["Holds"] == found["User namespace"]["Value"].startswith("range")
    assert found["Store"]["Holds"]
    for setting in SETTINGS:
        path = Path("/proc/sys") / setting.path
        assert (setting.path.replace("/", ".") in found) == (path.exists() and os.access(path, os.R_OK))
    for finding in said:
        assert finding["Holds"] or finding["Remedy"], finding
    lines = rootless.run("info", "--security").stdout
    assert all(f"{finding['Name']}: {finding['Value']}\n" in lines for finding in said)
