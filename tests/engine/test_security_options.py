"""--security-opt: what is asked for, what is refused, and what holds then."""

import os

import pytest

from rootless.engine.security_options import parse_security_options
from rootless.errors import HostUnsupported, InvalidInput, RootlessError
from tests.support.containers import Box

HAS_APPARMOR, HAS_SELINUX = os.path.isdir("/sys/kernel/security/apparmor"), os.path.exists("/sys/fs/selinux/enforce")


def parse(*options: str) -> dict[str, object]:
    return parse_security_options(options, "--security-opt")


def test_what_is_asked_for_with_either_sign() -> None:
    assert parse("no-new-privileges") == parse("no-new-privileges=true") == {"no_new_privileges": True}
    assert parse("no-new-privileges:false") == {"no_new_privileges": False}
    assert parse("systempaths=unconfined") == parse("unmask=ALL") == {"unmasked_paths": ("ALL",)}
    assert parse("mask=/a:/b/", "mask=/c") == {"masked_paths": ("/a", "/b", "/c")}
    assert parse("unmask=/proc/*:/sys/x") == {"unmasked_paths": ("/proc/*", "/sys/x")}
    assert parse("proc-opts=hidepid=2,subset=pid") == {"proc_options": ("hidepid=2", "subset=pid")}
    assert parse("apparmor=unconfined") == {"apparmor_profile": ""}
    assert parse("label=disable", "label:type:spc_t") == {}


def test_what_is_nonsense_is_refused() -> None:
    for wrong in ("mask=a", "mask=ALL", "unmask=proc", "label=typ:x", "label=type:", "label=type:a b", "label=user:\n"):
        with pytest.raises(InvalidInput):
            parse(wrong)
    for unknown in ("x", "no-new-privileges=maybe", "systempaths=y", "mask=", "label=", "credentialspec=file://x"):
        with pytest.raises(RootlessError, match=r"is not there|invalid"):
            parse(unknown)


@pytest.mark.skipif(HAS_APPARMOR, reason="AppArmor is on here")
def test_a_profile_that_cannot_hold_is_refused() -> None:
    with pytest.raises(HostUnsupported, match="no AppArmor"):
        parse("apparmor=docker-default")


@pytest.mark.skipif(HAS_SELINUX, reason="SELinux is on here")
def test_labels_are_passed_over_where_nothing_is_labelled() -> None:
    assert parse("label=type:container_t", "label=level:s0:c1,c2") == {}


@pytest.mark.kernel
def test_masks_are_put_on_and_taken_off(box: Box) -> None:
    options = ["mask=/etc/shadow:/home", "unmask=/proc/interrupts:/proc/sys", "proc-opts=hidepid=invisible"]
    given = [word for option in options for word in ("--security-opt", option)]
    script = "wc -c < /etc/shadow; ls /home | wc -l; wc -l < /proc/interrupts; grep -c ' /proc/sys ' /proc/self/mounts"
    passwd, home, interrupts, bound = box.sh(f"{script}; ls -d /proc/1", *given).split()[:4]
    assert (passwd, home, bound) == ("0", "0", "0")
    assert int(interrupts) > 0
    assert "hidepid=" in box.sh("grep ' /proc ' /proc/self/mounts", *given)
    box("create", "--name", "said", *given, box.image)
    assert box.inspect("said")["HostConfig"]["SecurityOpt"] == [
        *("mask=/etc/shadow:/home", "unmask=/proc/interrupts:/proc/sys")
    ]
