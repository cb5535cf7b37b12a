"""Ids on disk and ids that are shown, where the options say that these differ."""

from fuse.options import IdRange, MountOptions

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Sequence

NOBODY = 65534  # shown for an id that no range has, as the kernel does


class Ids:
    """The two directions, for users and groups. None stays None."""

    def __init__(self, options: MountOptions) -> None:
        self._maps = (options.uid_map, options.gid_map)
        self._squash = (options.squash_uid, options.squash_gid)

    def shown(self, uid: int, gid: int) -> tuple[int, int]:
        """What a file of these ids is said to belong to."""
        return self._shown(0, uid), self._shown(1, gid)

    def _shown(self, which: int, number: int) -> int:
        squash = self._squash[which]
        if squash is not None:
            return squash
        return NOBODY if (found := _find(self._maps[which], number, to_disk=False)) is None else found

    def on_disk(self, uid: int | None, gid: int | None) -> "tuple[int | None, int | None]":
        """What a file gets that is given to these ids. None for one that is squashed: its owner on disk stays."""
        return self._on_disk(0, uid), self._on_disk(1, gid)

    def _on_disk(self, which: int, number: int | None) -> int | None:
        if number is None or self._squash[which] is not None:
            return None
        found = _find(self._maps[which], number, to_disk=True)
        if found is None:
            raise OSError(22, "no range has this id")
        return found


def _find(ranges: "Sequence[IdRange]", number: int, *, to_disk: bool) -> int | None:
    if not ranges:
        return number
    for disk, shown, count in ranges:
        first, other = (shown, disk) if to_disk else (disk, shown)
        if first <= number < first + count:
            return other + number - first
    return None
