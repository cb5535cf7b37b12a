import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData, NotFound, RegistryFailure
from rootless.registry.answers import TemporaryFailure, parse_retry_after
from rootless.registry.client import Client
from rootless.registry.config import HostConfig, RegistryConfig, Timing
from rootless.registry.credentials import Credentials
from rootless.spec.digest import digest_of
from rootless.spec.image import Descriptor
from rootless.spec.reference import parse_reference
from tests.registry.conftest import HASTE
from tests.support.fault_registry import OK, Fault, FaultRegistry, MemorySink

LAYER = os.urandom(3 << 20)
SMALL = bytes(range(256)) * 4
PATH = "/v2/lib/app/blobs/*"


def fetch(
    client: Client,
    registry: FaultRegistry,
    data: bytes = SMALL,
    sink: MemorySink | None = None,
    size: int | None = None,
) -> MemorySink:
    """Serve *data* and fetch it into *sink*, promised to have *size* bytes."""
    registry.add_blob("lib/app", data)
    sink = sink or MemorySink()
    descriptor = Descriptor("application/octet-stream", digest_of(data), len(data) if size is None else size)
    client.fetch_blob(parse_reference(f"{registry.host}/lib/app"), descriptor, sink)
    return sink


def ranges(registry: FaultRegistry) -> list[str | None]:
    return [request.headers.get("range") for request in registry.seen(PATH)]


def test_a_blob_arrives_with_its_progress(faults: FaultRegistry, client: Client) -> None:
    seen: list[int] = []
    descriptor = Descriptor("x", digest_of(LAYER), len(LAYER))
    faults.add_blob("lib/app", LAYER)
    sink = MemorySink()
    client.fetch_blob(parse_reference(f"{faults.host}/lib/app"), descriptor, sink, progress=seen.append)
    assert sink.data == LAYER
    assert seen == sorted(seen)
    assert seen[-1] == len(LAYER)


def test_an_empty_or_complete_blob_is_not_asked_for(faults: FaultRegistry, client: Client) -> None:
    assert fetch(client, faults, b"").data == b""
    assert fetch(client, faults, SMALL, MemorySink(SMALL)).data == SMALL
    assert faults.seen() == []


# -- going on where it broke off: G04


# G04
def test_what_is_there_already_is_not_fetched_again(faults: FaultRegistry, client: Client) -> None:
    sink = fetch(client, faults, LAYER, MemorySink(LAYER[: 1 << 20]))
    assert sink.data == LAYER
    assert sink.restarts == 0
    assert ranges(faults) == ["bytes=1048576-"]
    assert faults.seen(PATH)[0].sent == 2 << 20


# G03, G04
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_body_goes_on_where_it_broke_off(
    reset: bool, chunked: bool, faults: FaultRegistry, client: Client
) -> None:
    cut = Fault(cut=1_500_000, reset=reset, chunked=chunked)
    faults.script(PATH, [cut, replace(cut, cut=100_000)])
    sink = fetch(client, faults, LAYER)
    assert sink.data == LAYER
    assert sink.restarts == 0
    first, *others = ranges(faults)
    assert first is None
    assert len(others) == 2
    assert all(text and text.startswith("bytes=") for text in others)
    assert sum(request.sent for request in faults.seen(PATH)) < len(LAYER) + (1 << 21)


# G04
def test_an_orderly_end_loses_nothing(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(cut=1000), Fault(cut=20)])
    assert fetch(client, faults).data == SMALL
    assert ranges(faults) == [None, "bytes=1000-", "bytes=1020-"]


# G04
def test_a_server_that_ignores_range_starts_the_blob_again(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(ignore_range=True)])
    sink = fetch(client, faults, SMALL, MemorySink(b"garbage"))
    assert sink.data == SMALL
    assert sink.restarts == 1
    assert len(ranges(faults)) == 1


# G04
def test_a_prefix_longer_than_the_server_s_blob_starts_again(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(status=416, body=b"")])
    sink = fetch(client, faults, SMALL, MemorySink(SMALL[:100]))
    assert sink.data == SMALL
    assert sink.restarts == 1
    assert ranges(faults) == ["bytes=100-", None]


# G04
def test_a_prefix_longer_than_the_blob_itself_starts_again(faults: FaultRegistry, client: Client) -> None:
    sink = fetch(client, faults, SMALL, MemorySink(SMALL + b"x"))
    assert sink.data == SMALL
    assert ranges(faults) == [None]


# G04
@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-1023/1024",
        "bytes 99-1023/1024",
        "bytes 100-1023/2048",
        "bytes 100-1023",
        "items 100-1023/1024",
        "",
        None,
    ],
)
def test_a_part_that_is_not_the_one_asked_for_is_not_taken(
    content_range: str | None, faults: FaultRegistry, client: Client
) -> None:
    faults.script(PATH, [Fault(headers={"Content-Range": content_range})])
    sink = fetch(client, faults, SMALL, MemorySink(SMALL[:100]))
    assert sink.data == SMALL
    assert sink.restarts == 1
    assert ranges(faults) == ["bytes=100-", None]


# G04
def test_a_server_that_always_answers_416_is_given_up(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(status=416)], forever=True)
    with pytest.raises(RegistryFailure):
        fetch(client, faults, SMALL, MemorySink(SMALL[:100]))
    assert len(faults.seen(PATH)) <= 4


# G04
def test_a_kill_and_another_day_go_on_from_what_the_disk_has(
    faults: FaultRegistry, client_with: Callable[..., Client]
) -> None:
    faults.script(PATH, [Fault(cut=2_000_000)] * 4)
    sink = MemorySink()
    with pytest.raises(RegistryFailure):
        fetch(client_with(timing=replace(HASTE, attempts=1)), faults, LAYER, sink)
    there = len(sink.data)
    assert sink.data == LAYER[:there]
    faults.forget()
    assert fetch(client_with(), faults, LAYER, MemorySink(bytes(sink.data))).data == LAYER
    assert faults.seen(PATH)[0].sent == len(LAYER) - there


# G03
def test_progress_pays_for_attempts(faults: FaultRegistry, client_with: Callable[..., Client]) -> None:
    layer = os.urandom(10 << 20)
    faults.script(PATH, [Fault(cut=(1 << 20) + 4096)] * 9)
    assert fetch(client_with(), faults, layer).data == layer  # nine broken connections, and four attempts
    faults.forget()
    faults.script(PATH, [Fault(cut=1000)], forever=True)
    with pytest.raises(TemporaryFailure, match="the connection ended before the body did"):
        fetch(client_with(), faults, layer)
    assert len(faults.seen(PATH)) == 4


# -- the length: R01


# R01
@pytest.mark.parametrize(
    "fault",
    [Fault(body=SMALL + b"x"), Fault(body=SMALL[:-1]), Fault(body=b""), Fault(length=5000), Fault(length=10)],
)
def test_a_length_that_is_not_the_promised_one_is_corrupt_before_a_byte_is_read(
    fault: Fault, faults: FaultRegistry, client: Client
) -> None:
    faults.script(PATH, [fault], forever=True)
    sink = MemorySink()
    with pytest.raises(CorruptData, match=r"1024 bytes expected, [0-9]+ announced"):
        fetch(client, faults, SMALL, sink)
    assert sink.data == b""
    assert len(faults.seen(PATH)) == 1


# R01
@pytest.mark.parametrize("how", [Fault(chunked=True), Fault(until_closed=True)])
def test_a_body_without_an_announced_length_is_not_read_beyond_the_next_byte(
    how: Fault, faults: FaultRegistry, client: Client
) -> None:
    faults.script(PATH, [replace(how, body=SMALL + b"x"), replace(how, body=b"x", endless=True), how])
    for _ in range(2):
        sink = MemorySink()
        with pytest.raises(CorruptData, match="longer than the 1024 bytes that it should have"):
            fetch(client, faults, SMALL, sink)
        assert sink.data == b""
    assert fetch(client, faults, SMALL).data == SMALL


# G03
def test_a_body_that_just_ends_is_asked_for_the_rest(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(until_closed=True, body=SMALL[:600])])
    assert fetch(client, faults).data == SMALL
    assert ranges(faults) == [None, "bytes=600-"]


# G03
def test_content_encoding_changes_nothing(faults: FaultRegistry, client: Client) -> None:
    for encoding in ("gzip", "zstd", "br", "deflate", "nonsense"):
        faults.script(PATH, [Fault(headers={"Content-Encoding": encoding})])
        assert fetch(client, faults).data == SMALL


# G03
def test_junk_after_the_end_does_not_reach_the_next_answer(faults: FaultRegistry, client: Client) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"E" * 1024
    faults.script(PATH, [Fault(junk=evil), OK])
    assert fetch(client, faults, SMALL).data == SMALL
    time.sleep(0.1)  # it has arrived, and spoils the connection; coming later it would be an answer with a wrong digest
    other = bytes(reversed(SMALL))
    assert fetch(client, faults, other).data == other


# R01
def test_wrong_bytes_of_the_right_length_are_for_the_sink_to_find(faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(corrupt=5)])
    assert fetch(client, faults).data != SMALL


# -- bad moments: G01, G02


# G01
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=502, body=b"<html>"),
        Fault(status=503),
        Fault(status=504),
        Fault(status=408),
        Fault(cut=-1),
        Fault(cut=-1, reset=True),
        Fault(cut=0),
    ],
)
def test_what_may_pass_is_tried_again_and_given_up_in_the_end(
    fault: Fault, faults: FaultRegistry, client: Client
) -> None:
    faults.script(PATH, [fault] * 3)
    assert fetch(client, faults).data == SMALL
    faults.script(PATH, [fault], forever=True)
    with pytest.raises(TemporaryFailure) as caught:
        fetch(client, faults)
    assert str(caught.value).startswith(f"{faults.host}: ")
    assert "\n" not in str(caught.value)
    assert len(faults.seen(PATH)) == 8


# G01
def test_tls_that_is_cut_is_tried_again(
    client_with: Callable[..., Client], certificates: Callable[[str], tuple[ssl.SSLContext, str]]
) -> None:
    context, ca_file = certificates("good")
    with FaultRegistry(tls=context) as registry:
        client = client_with({registry.host: HostConfig(ca_file=ca_file)})
        registry.spoil_connections("reset", "close")
        registry.script(PATH, [Fault(cut=500)])
        assert fetch(client, registry).data == SMALL


# G02
@pytest.mark.parametrize(
    "retry_after, shortest",
    [("1", 1.0), ("0", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0), ("-5", 0), ("1e9", 0), ("", 0)],
)
def test_retry_after_is_obeyed_where_it_makes_sense(
    retry_after: str, shortest: float, faults: FaultRegistry, client: Client
) -> None:
    faults.script(PATH, [Fault(status=429, headers={"Retry-After": retry_after})])
    start = time.monotonic()
    assert fetch(client, faults).data == SMALL
    assert shortest <= time.monotonic() - start < shortest + 1


# G02
@pytest.mark.parametrize("retry_after", ["604800", "Fri, 31 Dec 2199 23:59:59 GMT", "61"])
def test_a_week_is_not_waited_for_but_told(retry_after: str, faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [Fault(status=429, headers={"Retry-After": retry_after}, body=b"")], forever=True)
    with pytest.raises(RegistryFailure, match=r"status 429: it wants to be asked again in [0-9]+ seconds") as caught:
        fetch(client, faults)
    assert caught.value.hint == f"try `rootless login {faults.host}`"
    assert len(faults.seen(PATH)) == 1


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d{1,9} \d\d:\d\d:\d\d GMT", fullmatch=True))
def test_any_retry_after_is_a_number_of_seconds_or_none(text: str) -> None:
    seconds = parse_retry_after(text)
    assert seconds is None or seconds >= 0


# -- silence: G05


# G05
@pytest.mark.parametrize(
    "fault", [Fault(stall=0), Fault(stall=1014), Fault(drip=0.05), Fault(delay=10), Fault(drip_headers=0.05)]
)
def test_a_stall_is_given_up_and_another_attempt_made(fault: Fault, faults: FaultRegistry, client: Client) -> None:
    faults.script(PATH, [fault])
    start = time.monotonic()
    assert fetch(client, faults).data == SMALL
    assert time.monotonic() - start < 3


# G05
def test_cancel_ends_a_fetch_at_once(faults: FaultRegistry) -> None:
    faults.script(PATH, [Fault(stall=100)], forever=True)
    errors: list[Exception] = []
    with Client(RegistryConfig(), Credentials(), Timing()) as patient:

        def run() -> None:
            try:
                fetch(patient, faults)
            except RegistryFailure as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while not faults.seen(PATH):
            time.sleep(0.01)
        start = time.monotonic()
        patient.cancel()
        thread.join(5)
        assert time.monotonic() - start < 1
    assert [str(error) for error in errors] == ["cancelled"]
    assert len(faults.seen(PATH)) == 1


# -- several at once, and mirrors


def test_threads_share_a_client(client: Client) -> None:
    with FaultRegistry(auth="bearer") as registry:
        layers = [os.urandom(1 << 18) for _ in range(12)]
        results: dict[int, bytes] = {}

        def run(number: int) -> None:
            for i in range(number, len(layers), 4):
                results[i] = bytes(fetch(client, registry, layers[i]).data)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [results[i] for i in range(12)] == layers
        assert len(registry.seen("/token")) == 1
        assert len({request.connection for request in registry.seen()}) <= 12


def test_a_mirror_that_breaks_off_is_followed_by_the_registry(client_with: Callable[..., Client]) -> None:
    with FaultRegistry() as mirror, FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(mirror.host,))})
        mirror.add_blob("lib/app", SMALL)
        mirror.script(PATH, [Fault(cut=700)] + [Fault(status=500)] * 5)
        sink = fetch(client, registry)
        assert sink.data == SMALL
        assert sink.restarts == 0
        assert ranges(registry) == ["bytes=700-"]
        assert len(mirror.seen(PATH)) == 2
        fetch(client, registry, LAYER)
        assert len(mirror.seen(PATH)) == 2  # it has shown what it is worth


# R01
def test_a_mirror_with_another_length_is_not_believed_and_can_be_left_out(client_with: Callable[..., Client]) -> None:
    with FaultRegistry() as mirror, FaultRegistry() as registry:
        client = client_with({registry.host: HostConfig(mirrors=(mirror.host,))})
        mirror.script(PATH, [Fault(status=200, body=SMALL * 2, chunked=True)])
        assert fetch(client, registry).data == SMALL
        mirror.script(PATH, [Fault(status=200, body=b"E" * 1024)])
        assert fetch(client, registry).data == b"E" * 1024  # the sink's owner finds out
        descriptor = Descriptor("x", digest_of(SMALL), 1024)
        sink = MemorySink()
        client.fetch_blob(parse_reference(f"{registry.host}/lib/app"), descriptor, sink, mirrors=False)
        assert sink.data == SMALL


def test_a_blob_that_is_not_there_is_not_found(faults: FaultRegistry, client: Client) -> None:
    descriptor = Descriptor("x", digest_of(b"nowhere"), 7)
    message = f"^{faults.host}: blob {descriptor.digest} of lib/app not found: blob unknown to registry$"
    with pytest.raises(NotFound, match=message):
        client.fetch_blob(parse_reference(f"{faults.host}/lib/app"), descriptor, MemorySink())
