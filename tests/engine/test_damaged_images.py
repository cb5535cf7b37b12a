"""A record that cannot be read costs one image, not the store (SECURITY.md V04)."""

from collections.abc import Callable

import pytest

from tests.support.account import Installation

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"id": 1}', b"\xff\0"])
def test_an_image_with_a_damaged_record_is_told_and_can_be_removed(
    content: bytes, image: Callable[[str], str], rootless: Installation
) -> None:
    busybox, other = image("busybox"), image("whiteouts")
    for name in (busybox, other):
        rootless.run("pull", "-q", name)
    image_id = rootless.run("images", "-q", "--no-trunc", busybox).stdout.strip()
    record = rootless.data / f"rootless/images/{image_id[7:]}.json"
    record.write_bytes(content)

    listed = rootless.run("images", "-q", "--no-trunc")
    assert image_id not in listed.stdout
    assert len(listed.stdout.split()) == 1
    assert f"the record of image {image_id} is damaged" in listed.stderr
    refused = rootless.run("run", "--rm", "--pull", "never", busybox, "true", check=False)
    assert refused.returncode == 125
    assert "is damaged" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert rootless.run("run", "--rm", other, "echo", "well").stdout == "well\n"

    assert rootless.run("rmi", "-f", image_id[7:19]).stdout == f"Deleted: {image_id}\n"
    assert rootless.run("images", "-q").stderr == ""
    assert rootless.run("run", "--rm", busybox, "echo", "again").stdout == "again\n"
