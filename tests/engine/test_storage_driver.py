"""The storage driver: how it is chosen, and what is handed to a server of unions."""

import json
import os
from pathlib import Path

import pytest

from rootless.engine import host_image, storage
from rootless.engine.context import Engine
from rootless.engine.storage import Found
from rootless.errors import HostUnsupported
from rootless.spec.runtime import escape_overlay
from rootless.store.layout import Layout
from rootless.store.marks import WhiteoutStyle
from tests.support.store import OutsideEngine


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for name in ("root", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return Layout(str(tmp_path / "root"), str(tmp_path / "run"))


class Unexpected(Engine):
    """An engine that has to know."""

    def enter_namespace(self) -> str:
        raise AssertionError("tried out again")


class Forbidden(Engine):
    """An engine on a machine that allows no user namespaces."""

    def enter_namespace(self) -> str:
        raise HostUnsupported("user namespaces are forbidden")


# Choosing


@pytest.mark.parametrize(("refused", "driver"), [(True, "fuse"), (False, "overlay")])
def test_what_was_tried_out_is_known_until_the_next_boot(layout: Layout, refused: bool, driver: str) -> None:
    storage.save(layout, Found(refused, False))
    assert Unexpected(layout, layout.run).storage_driver == driver
    known = json.loads(Path(layout.run_path("driver")).read_text())
    Path(layout.run_path("driver")).write_text(json.dumps({**known, "boot_id": "another"}))
    with pytest.raises(AssertionError, match="tried out again"):
        assert Unexpected(layout, layout.run).storage_driver


def test_where_overlayfs_is_refused_it_is_fuse(layout: Layout) -> None:
    engine = OutsideEngine(layout, layout.run)  # outside of any namespace of ours: mounting is not for us
    assert engine.storage_driver == "fuse"
    assert os.listdir(layout.path("trash")) == []
    assert Unexpected(layout, layout.run).storage_driver == "fuse"


@pytest.mark.parametrize("style", WhiteoutStyle)
def test_layers_are_marked_as_the_file_system_takes_it(layout: Layout, style: WhiteoutStyle) -> None:
    storage.save(layout, Found(True, style is WhiteoutStyle.FUSE))
    assert Unexpected(layout, layout.run, "fuse").whiteout_style is style


def test_without_user_namespaces_nothing_is_decided(layout: Layout) -> None:
    assert Forbidden(layout, layout.run).storage_driver == "overlay"
    assert not os.path.exists(layout.run_path("driver"))


def test_what_is_asked_for_is_not_tried_out(layout: Layout) -> None:
    assert Engine(layout, layout.run, "fuse").storage_driver == "fuse"
    with pytest.raises(HostUnsupported, match="'btrfs' is not there"):
        Engine(layout, layout.run, "btrfs")


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    with pytest.raises(HostUnsupported, match=r"fuse cannot be used: .*pyfuse3 is not installed") as told:
        storage.root_mount("fuse", ["/lower"], "/container", WhiteoutStyle.FUSE)
    assert "pip install 'rootless[fuse]'" in told.value.hint


def test_each_layer_is_a_word_of_the_servers_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "check_fuse", lambda: None)
    lowers = ["/a:b", "/c,d", r"/e\f", "/g"]
    config = {"mounts": [storage.root_mount("fuse", lowers, "/home/a:b", WhiteoutStyle.FUSE)]}
    settings = storage.union_settings(config, "/run/c")
    assert settings is not None
    words = settings["argv"][settings["argv"].index("-o") :]
    assert words[::2] == ["-o"] * (len(words) // 2)
    assert words[1::2] == [
        *(f"lowerdir+={escape_overlay(path)}" for path in lowers),
        *(r"upperdir=/home/a\:b/upper", r"workdir=/home/a\:b/work", "userxattr"),
    ]
    assert (settings["work"], settings["log"]) == ("/home/a:b/work", "/run/c/fuse.log")
    kernels = storage.root_mount("overlay", lowers, "/c", WhiteoutStyle.OVERLAY)
    assert storage.union_settings({"mounts": [kernels]}, "/run/c") is None


def test_a_store_with_overlayfs_marks_has_no_others(monkeypatch: pytest.MonkeyPatch) -> None:  # F03
    monkeypatch.setattr(storage, "check_fuse", lambda: None)
    styles = [(driver, style) for driver in storage.DRIVERS for style in WhiteoutStyle]
    told = [storage.root_mount(driver, ["/lower"], "/c", style)["options"] for driver, style in styles]
    assert ["marks=overlay" in options for options in told] == [False, False, True, False]


def test_over_the_machines_root_the_state_of_the_machine_is_hidden(tmp_path: Path) -> None:
    host_image.hide(str(tmp_path))
    hidden = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if is_opaque(path)}
    assert {"proc", "sys", "dev", "tmp"} <= hidden
    assert all(path.is_dir() for path in tmp_path.rglob("*"))
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path)
