"""images, tag: which images there are, under which names, and which of them a filter means.

An image has names of two kinds: tags, which the user may move, and digests ("alpine@sha256:…"), which say what a
registry called it when it was pulled. An image without a tag is dangling. `host` (host_image.py) is none of these: it
has no layers, so nothing here takes it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import NamedTuple

from rootless.engine import events, host_image
from rootless.engine.context import Engine
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.spec.platform import acceptable, parse_platform
from rootless.spec.reference import Reference, parse_reference
from rootless.store.images import Image

_SECOND = 1_000_000_000


class Listed(NamedTuple):
    """An image and its names, in their order."""

    image: Image
    tags: tuple[Reference, ...]
    digests: tuple[Reference, ...]

    @property
    def names(self) -> tuple[Reference, ...]:
        """The tags, then the digests."""
        return (*self.tags, *self.digests)

    @property
    def created(self) -> int | None:
        """When it was made, ns of the epoch; None where it does not say."""
        return moment(self.image.created)


class ImageFilter(NamedTuple):
    """What `images --filter` selects by; everything that is given must hold."""

    references: tuple[str, ...] = ()  # patterns, one of which a name must match; other names are left out
    dangling: bool | None = None
    before: str = ""  # an image: only older ones
    since: str = ""  # an image: only newer ones
    until: int | None = None  # ns of the epoch: only what was made by then
    labels: Callable[[Mapping[str, str]], bool] | None = None


def list_images(engine: Engine, wanted: ImageFilter | None = None) -> list[Listed]:
    """The images that are *wanted* (all), the newest first. Raises NotFound, Conflict, InvalidInput."""
    images = with_names(engine, engine.images.list())
    images.sort(key=lambda listed: listed.created or 0, reverse=True)
    return images if wanted is None else _select(engine, images, wanted)


def with_names(engine: Engine, images: Iterable[Image]) -> list[Listed]:
    """*images*, each with its names."""
    tags: dict[str, list[Reference]] = {}
    for name, image_id in sorted(engine.images.tags().items()):
        tags.setdefault(image_id, []).append(parse_reference(name))
    return [
        Listed(image, tuple(tags.get(image.id, ())), tuple(map(parse_reference, sorted(image.repo_digests))))
        for image in images
    ]


def _select(engine: Engine, images: list[Listed], wanted: ImageFilter) -> list[Listed]:
    if wanted.dangling is not None:
        images = [i for i in images if (not i.tags if wanted.dangling else bool(i.names))]
    if wanted.before:
        limit = moment(find_image(engine, wanted.before).created) or 0
        images = [i for i in images if (i.created or 0) < limit]
    if wanted.since:
        limit = moment(find_image(engine, wanted.since).created) or 0
        images = [i for i in images if (i.created or 0) > limit]
    if wanted.until is not None:
        images = [i for i in images if (i.created or 0) <= wanted.until]
    if wanted.labels is not None:
        images = [i for i in images if wanted.labels(engine.images.config(i.image).config.labels)]
    if wanted.references:
        patterns = [_glob(text) for text in wanted.references]
        images = [
            i._replace(tags=tuple(_matching(i.tags, patterns)), digests=tuple(_matching(i.digests, patterns)))
            for i in images
        ]
        images = [i for i in images if i.names]
    return images


def _matching(names: Iterable[Reference], patterns: list[re.Pattern[str]]) -> list[Reference]:
    """reference.FamiliarMatch of distribution/reference: the whole familiar form, or its repository alone."""
    return [n for n in names if any(p.fullmatch(n.familiar) or p.fullmatch(n.familiar_name) for p in patterns)]


def _glob(pattern: str) -> re.Pattern[str]:
    """Go's path.Match as a regular expression: no wildcard goes over a slash. Raises InvalidInput."""
    rest, parts = pattern, []
    while rest:
        found = _GLOB_PART.match(rest)
        if found is None:
            raise InvalidInput(f"invalid filter 'reference={pattern}': syntax error in pattern")
        if found["set"]:
            parts.append(f"[{found['negated']}{_character_set(found['set'])}]")
        elif found["wild"]:
            parts.append("[^/]*" if found["wild"] == "*" else "[^/]")
        else:
            parts.append(re.escape(found["char"]))
        rest = rest[found.end() :]
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:  # a range that runs backwards
        raise InvalidInput(f"invalid filter 'reference={pattern}': syntax error in pattern") from error


_GLOB_PART = re.compile(
    r"(?P<wild>[*?])|\[(?P<negated>\^?)(?P<set>(?:\\.|[^\]\\-])(?:-?(?:\\.|[^\]\\-]))*)\]|\\?(?P<char>(?<=\\).|[^\\\[])",
    re.DOTALL,
)


def _character_set(members: str) -> str:
    """What stands between the brackets, with everything escaped that only regular expressions know."""
    return re.sub(r"\\(.)|([^\w-])", lambda found: re.escape(found[1] or found[2]), members)


def find_image(engine: Engine, text: str) -> Image:
    """The image that *text*, a name or the beginning of an id, means. Raises NotFound, Conflict, InvalidInput."""
    if text == host_image.NAME:
        raise Conflict(
            "the image 'host' is built in: it is this machine's own root file system, and has no layers",
            hint="run it as it is; `rootless image inspect host` shows what it is",
        )
    image = engine.images.find(text)
    if image is None:
        raise NotFound(f"No such image: {_shown_name(text)}")
    return image


def find_name(engine: Engine, text: str, image: Image) -> Reference | None:
    """The name by which *text* means *image*; None where it is (the beginning of) the image's id."""
    try:
        reference = parse_reference(text).with_default_tag()
    except InvalidInput:
        return None
    found = engine.images.by_reference(reference)
    if found is None or found.id != image.id:
        return None
    return reference._replace(tag=None) if reference.digest else reference


def check_platform(engine: Engine, image: Image, text: str, platform: str) -> None:
    """Raise NotFound where *image*, called *text*, is not for *platform* ("" for any)."""
    if platform and engine.images.config(image).platform not in acceptable(parse_platform(platform)):
        raise NotFound(
            f"image with reference {text} was found but does not provide the specified platform ({platform})",
            hint="an image is kept for one platform: pull it with --platform",
        )


def tag_image(engine: Engine, source: str, target: str) -> None:
    """Let the name *target* mean the image *source*. Raises NotFound, Conflict, InvalidInput."""
    image = find_image(engine, source)
    reference = target_reference(target)
    # Shared: an image may get several names at a time, but not while it is being removed.
    with engine.layout.lock(image_lock(image.id), shared=True):
        engine.images.load(image.id)
        engine.images.tag(reference, image.id)
    events.of_image(engine, image, "tag", reference.familiar)


def target_reference(text: str) -> Reference:
    """The name with a tag that an image may be called by from now on. Raises InvalidInput, Conflict."""
    try:
        reference = parse_reference(text)
    except InvalidInput as error:
        raise InvalidInput(f'"{text}" is not a valid repository/tag: {error}') from error
    if reference.digest:
        raise InvalidInput("refusing to create a tag with a digest reference")
    if reference.familiar_name == host_image.NAME:
        raise Conflict("the name 'host' belongs to the built-in image")
    return reference.with_default_tag()


def image_lock(image_id: str) -> str:
    """The name of the lock that is held shared while an image gets a user, and exclusively while it is removed."""
    return f"image.{image_id.partition(':')[2]}"


def _shown_name(text: str) -> str:
    try:
        return parse_reference(text).with_default_tag().familiar
    except InvalidInput:
        return text


_RFC3339 = re.compile(
    r"(?P<whole>\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2})(?:\.(?P<part>\d{1,9})\d*)?(?P<zone>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)


def moment(text: str | None) -> int | None:
    """ns of the epoch of an RFC 3339 time, which comes from strangers; None for what is none.

    None also for the first of January of the year 1: Go's zero time, which says that nobody knows.
    """
    found = _RFC3339.fullmatch(text or "")
    if found is None:
        return None
    zone = found["zone"].upper().replace("Z", "+00:00")
    try:
        time = datetime.fromisoformat(found["whole"].upper() + zone)
        seconds = int((time - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
    except (ValueError, OverflowError):
        return None
    if not 1 < time.year < 9999:  # at the edges it has no local time
        return None
    return seconds * _SECOND + int((found["part"] or "").ljust(9, "0"))
