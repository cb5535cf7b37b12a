"""Mounts and devices in Docker's syntax, and what Docker says of wrong ones."""

import csv
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.mount_values import (
    Device,
    Mount,
    csv_fields,
    parse_device,
    parse_mount,
    parse_tmpfs,
    parse_volume,
)
from rootless.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", Mount("volume", "/data")),
        ("/a:/b", Mount("bind", "/b", "/a", create_source=True)),
        ("/a:/b/../c//d/", Mount("bind", "/c/d", "/a", create_source=True)),
        ("./a:/b:ro", Mount("bind", "/b", "./a", read_only=True, create_source=True)),
        ("..:/b", Mount("bind", "/b", "..", create_source=True)),
        ("/a:/b:rw,z,rslave", Mount("bind", "/b", "/a", create_source=True, propagation="rslave", label="z")),
        ("/a:/b:U,cached", Mount("bind", "/b", "/a", create_source=True, chown=True)),
        ("vol:/b", Mount("volume", "/b", "vol")),
        ("vol_1.x:/b:nocopy,ro", Mount("volume", "/b", "vol_1.x", read_only=True, no_copy=True)),
        ("/a,b:/c", Mount("bind", "/c", "/a,b", create_source=True)),
        ("/a b:/ß", Mount("bind", "/ß", "/a b", create_source=True)),
    ],
)
def test_volumes(text: str, expected: Mount) -> None:
    assert parse_volume(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid empty volume spec"),
        (":", "invalid spec: :: empty section between colons"),
        (":/b", "invalid spec: :/b: empty section between colons"),
        ("/a:", "invalid spec: /a:: empty section between colons"),
        ("/a:/b:", "invalid spec: /a:/b:: empty section between colons"),
        ("/a:/b:ro:z", "invalid spec: /a:/b:ro:z: too many colons"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:xx", "invalid mode: xx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("/a:/b:ro,", "invalid mode: ro,"),
        ("/a:b", "invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute"),
        ("a", "invalid mount config for type \"volume\": invalid mount path: 'a' mount path must be absolute"),
        ("/a:/", "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        ("/a:/b/..", "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        ("/a://", "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        (
            "a b:/c",
            '"a b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
        ),
        (
            "~/a:/c",
            '"~/a" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
        ),
    ],
)
def test_other_volumes_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_volume(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dst=/b", Mount("volume", "/b")),
        ("type=bind,source=/a,target=/b", Mount("bind", "/b", "/a")),
        ("TYPE=Bind,Src=/a,Destination=/b,READONLY", Mount("bind", "/b", "/a", read_only=True)),
        ("type=bind,src=./a,dst=/b,ro=false", Mount("bind", "/b", "./a")),
        ("type=bind,src=/a,dst=/b,bind-propagation=rslave", Mount("bind", "/b", "/a", propagation="rslave")),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive", Mount("bind", "/b", "/a", recursive="disabled")),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", Mount("bind", "/b", "/a", recursive="readonly")),
        ("type=bind,src=/a,dst=/b,bind-create-src", Mount("bind", "/b", "/a", create_source=True)),
        ("type=bind,src=/a,dst=/b,consistency=cached", Mount("bind", "/b", "/a")),
        ("src=v1,dst=/b,volume-nocopy", Mount("volume", "/b", "v1", no_copy=True)),
        ("src=v1,dst=/b,volume-subpath=x/../y", Mount("volume", "/b", "v1", subpath="y")),
        (
            'src=v1,dst=/b,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=1,rw",volume-label=a=b',
            Mount(
                "volume",
                "/b",
                "v1",
                labels=(("a", "b"),),
                driver="local",
                driver_options=(("type", "nfs"), ("o", "addr=1,rw")),
            ),
        ),
        (
            "type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770",
            Mount("tmpfs", "/b", options=("size=1048576", "mode=1770")),
        ),
        ("type=image,src=busybox,dst=/b", Mount("image", "/b", "busybox")),
        ("type=bind,type=tmpfs,dst=/b", Mount("tmpfs", "/b")),
    ],
)
def test_mounts(text: str, expected: Mount) -> None:
    assert parse_mount(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "EOF"),
        ("type=bind", "target is required"),
        ("type=foo,dst=/b", 'invalid mount config for type "foo": mount type unknown'),
        ("dst=/b,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("dst=/b,foo", "invalid field 'foo' must be a key=value pair"),
        ("dst=/b,", "invalid field '' must be a key=value pair"),
        ("dst=/b,source", "invalid field 'source' must be a key=value pair"),
        (" type=bind,src=/a,dst=/b", "unexpected key ' type' in ' type=bind'"),
        ("=x,dst=/b", "unexpected key '' in '=x'"),
        ("type=bind,src=/a,dst=/b,readonly=x", "invalid value for readonly: x"),
        ("type=bind,src=/a,dst=/b,readonly=", "invalid value for readonly: "),
        ("type=bind,src=/a,dst=/b,bind-propagation=zz", "invalid value for bind-propagation: zz"),
        ("type=bind,src=/a,dst=/b,bind-recursive=zz", "invalid value for bind-recursive: zz"),
        ("type=tmpfs,dst=/b,tmpfs-size=1z", "invalid value for tmpfs-size: 1z"),
        ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ("src=v1,dst=/b,volume-subpath=../x", "invalid value for volume-subpath: ../x"),
        ("src=v1,dst=/b,volume-subpath=/x", "invalid value for volume-subpath: /x"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("dst=/b,bind-propagation=rslave", "cannot mix 'bind-*' options with mount type 'volume'"),
        ("type=tmpfs,src=x,dst=/b", 'invalid mount config for type "tmpfs": field Source must not be specified'),
        ("type=bind,dst=/b", 'invalid mount config for type "bind": field Source must not be empty'),
        (
            "type=bind,src=a,dst=/b",
            "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute",
        ),
        (
            "dst=/b,ro",
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        (
            "dst=/b,volume-subpath=x",
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            "type=bind,src=/a,dst=/",
            "invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
        ),
        ('dst=/b,"src=a', 'parse error on line 1, column 14: extraneous or missing " in quoted-field'),
        ('dst=/b,"src=a"b', 'parse error on line 1, column 15: extraneous or missing " in quoted-field'),
        ('dst=/b,sr"c=a', 'parse error on line 1, column 10: bare " in non-quoted field'),
    ],
)
def test_other_mounts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_mount(text)
    assert str(caught.value) == message


@given(st.lists(st.text(alphabet='ab",= ', max_size=5), min_size=1, max_size=4).filter(any))
def test_csv_is_split_as_it_was_joined(fields: list[str]) -> None:
    line = ",".join('"' + field.replace('"', '""') + '"' if set(field) & set('",') else field for field in fields)
    assert csv_fields(line) == fields
    assert next(csv.reader([line])) == fields


@given(st.text(alphabet='abc",=:/. ', max_size=16))
def test_any_text_is_a_mount_or_refused(text: str) -> None:
    for parse in (parse_volume, parse_mount, parse_tmpfs, parse_device):
        with suppress(InvalidInput):
            assert parse(text).target.startswith("/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a", Mount("tmpfs", "/a")),
        ("/a:", Mount("tmpfs", "/a")),
        ("/a:rw,noexec,size=64k", Mount("tmpfs", "/a", options=("rw", "noexec", "size=64k"))),
        ("/a:ro", Mount("tmpfs", "/a", read_only=True, options=("ro",))),
    ],
)
def test_tmpfs(text: str, expected: Mount) -> None:
    assert parse_tmpfs(text) == expected


@pytest.mark.parametrize("text", ["", "a", "/", "/a:foo", "/a:size", "/a:exec=1", "/a:upperdir=/"])
def test_other_tmpfs_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_tmpfs(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/fuse", Device("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/sda:/dev/xvda", Device("/dev/sda", "/dev/xvda", "rwm")),
        ("/dev/sda:r", Device("/dev/sda", "/dev/sda", "r")),
        ("/dev/sda:/dev/xvda:rw", Device("/dev/sda", "/dev/xvda", "rw")),
        ("/dev/sda::m", Device("/dev/sda", "/dev/sda", "m")),
    ],
)
def test_devices(text: str, expected: Device) -> None:
    assert parse_device(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad format for path: "),
        (":", "bad format for path: :"),
        ("a:b:c:d", "bad format for path: a:b:c:d"),
        ("/dev/sda:/dev/xvda:rz", "bad mode specified: rz"),
        ("/dev/sda:/dev/xvda:rr", "bad mode specified: rr"),
        ("/dev/sda:/dev/xvda:", "bad mode specified: "),
        ("/dev/sda:x", "x is not an absolute path"),
        ("sda", "sda is not an absolute path"),
    ],
)
def test_other_devices_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_device(text)
    assert str(caught.value) == message
