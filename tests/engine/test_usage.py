"""system df, system prune: what everything takes, what is shared, and what nobody uses, which goes."""

import json
from pathlib import Path

import pytest

from tests.support.containers import Box

pytestmark = pytest.mark.kernel


def rows(box: Box) -> dict[str, dict[str, str]]:
    lines = box("system", "df", "--format", "json").stdout.splitlines()
    return {row["Type"]: row for row in map(json.loads, lines)}


def test_everything_is_counted_and_what_nobody_uses_can_be_had_back(box: Box) -> None:
    before = rows(box)
    assert before["Images"]["Active"] == "0"
    assert before["Images"]["Reclaimable"].endswith("(100%)")
    box("volume", "create", "empty")
    box("create", "--name", "idle", "-v", "data:/data", box.image, "true")
    box.run(
        "sh", "-c", "head -c 5000 /dev/zero > /file; head -c 300 /dev/zero > /data/file", options=("-v", "data:/data")
    )
    box.detached("head -c 5000 /dev/zero > /file; sleep 100", "--name", "busy")
    after = rows(box)
    assert (after["Containers"]["TotalCount"], after["Containers"]["Active"]) == ("2", "1")
    assert after["Images"]["Active"] == "1"
    assert (after["Local Volumes"]["TotalCount"], after["Local Volumes"]["Active"]) == ("2", "1")
    assert (after["Local Volumes"]["Size"], after["Local Volumes"]["Reclaimable"]) == ("300B", "0B (0%)")


def test_layers_that_images_share_count_once(box: Box, tmp_path: Path) -> None:
    size = rows(box)["Images"]["Size"]
    (tmp_path / "Dockerfile").write_text(f"FROM {box.image}\nCOPY file /\n")
    (tmp_path / "file").write_bytes(bytes(10))
    box("build", "-q", "-t", "one", str(tmp_path))
    box("tag", box.image, "again")
    try:
        text = box("system", "df", "-v").stdout
        assert rows(box)["Images"]["Size"] == size  # ten bytes more than some hundred thousand
        row = next(line for line in text.splitlines() if line.startswith("one "))
        assert " 10B " in row
    finally:
        box("rmi", "one", "again")


def test_verbose_has_a_form_of_its_own(box: Box) -> None:
    done = box("system", "df", "-v", "--format", "json", check=False)
    assert (done.returncode, "-v or --format" in done.stderr) == (1, True)


def test_what_nobody_uses_goes_and_the_rest_stays(box: Box, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {box.image}\nRUN echo cached > /file\n")
    box("build", "-q", str(tmp_path))  # an image without a name
    box("network", "create", "unused")
    box("create", "--name", "idle", "-v", "/anonymous", box.image, "true")
    box("create", "--name", "kept", "--label", "keep=yes", box.image, "true")
    box.detached("sleep 100", "--name", "busy")
    assert box("system", "prune", input="n\n", check=False).returncode == 1
    assert len(box.ids()) == 3
    said = box("system", "prune", "-f", "--volumes", "--filter", "label!=keep=yes").stdout
    titles = [line for line in said.splitlines() if line.startswith("Deleted")]
    assert titles == [f"Deleted {what}:" for what in ("Containers", "Networks", "Volumes", "Images")]
    assert box("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["busy", "kept"]
    assert "unused" not in box("network", "ls").stdout
    assert box("images", "-q", "-f", "dangling=true").stdout == ""
    assert box("buildx", "du", "--format", "json").stdout != ""  # what has no labels stays
    said = box("system", "prune", "-f", "--volumes").stdout
    assert "Deleted build cache objects:" in said
    assert box("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["busy"]
    assert box("volume", "ls", "-q").stdout == ""
    assert box("buildx", "du", "--format", "json").stdout == ""
