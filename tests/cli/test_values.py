"""Values as Docker reads and prints them."""

import ipaddress
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli import values
from rootless.cli.values import ExtraHost, RestartPolicy
from rootless.errors import InvalidInput

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("64", 64),
        ("64b", 64),
        ("64B", 64),
        ("1k", KIB),
        ("1kb", KIB),
        ("1KiB", KIB),
        ("64m", 64 * MIB),
        ("1.5GB", 3 * GIB // 2),
        ("1.5g", 3 * GIB // 2),
        (".5g", GIB // 2),
        ("5.g", 5 * GIB),
        ("1 gb", GIB),
        ("1TiB", 1 << 40),
        ("2p", 1 << 51),
        ("1e3", 1000),
        ("1e3k", 1000 * KIB),
        ("0.3", 0),
    ],
)
def test_memory_is_read_in_powers_of_1024(text: str, expected: int) -> None:
    assert values.parse_memory(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid size: ''"),
        ("-1", "invalid size: '-1'"),
        ("-0.5k", "invalid size: '-0.5k'"),
        ("k", "invalid size: 'k'"),
        ("1mm", "invalid suffix: 'mm'"),
        ("1kbb", "invalid suffix: 'kbb'"),
        ("1ib", "invalid suffix: 'ib'"),
        ("1e", "invalid suffix: 'e'"),
        ("12ZZ", "invalid suffix: 'zz'"),
        (" 1g", "invalid size: ' 1g'"),
        ("1g ", "invalid size: '1g '"),
        ("1  g", "invalid size: '1  g'"),
        ("1.2.3g", "invalid size: '1.2.3g'"),
        ("0x10", "invalid size: '0x10'"),
        ("1e999", "invalid size: '1e999'"),
        ("9223372036854775808", "invalid size: '9223372036854775808'"),
        ("1" * 500 + "p", "invalid size: '" + "1" * 500 + "p'"),
        ("nan", "invalid size: 'nan'"),
        ("\u0661k", "invalid size: '\u0661k'"),
    ],
)
def test_other_sizes_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        values.parse_memory(text)
    assert str(caught.value) == message


def test_sizes_of_files_are_powers_of_1000() -> None:
    assert values.parse_size("1.5kB") == 1500


def test_swap_may_be_without_limit() -> None:
    assert values.parse_memory_swap("-1") == -1
    assert values.parse_memory_swap("1g") == GIB


@pytest.mark.parametrize(
    ("size", "digits", "expected"),
    [
        (0, 4, "0B"),
        (999, 3, "999B"),
        (1000, 3, "1kB"),
        (1024, 4, "1.024kB"),
        (1_234_567, 3, "1.23MB"),
        (4_262_309, 3, "4.26MB"),
        (123_456_789, 4, "123.5MB"),
        (999_999, 3, "1MB"),  # Docker prints 1e+03kB
        (999_999_999_999, 4, "1TB"),
        (10**19, 3, "10EB"),
        (10**23, 3, "100000EB"),
    ],
)
def test_sizes_are_printed_in_powers_of_1000(size: int, digits: int, expected: str) -> None:
    assert values.human_size(size, digits) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "0B"), (1024, "1KiB"), (44 * KIB, "44KiB"), (3 * GIB // 2, "1.5GiB")]
)
def test_sizes_are_printed_in_powers_of_1024(size: int, expected: str) -> None:
    assert values.bytes_size(size) == expected


@given(st.integers(0, 9 * 10**17))
def test_a_printed_size_is_read_back_within_its_digits(size: int) -> None:
    assert values.parse_size(values.human_size(size, 4)) == pytest.approx(size, rel=1e-3, abs=1)


@given(st.text(alphabet="0123456789.eE+- kKmMgibB", max_size=8))
def test_a_size_is_a_number_of_bytes_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert 0 <= values.parse_memory(text) < 1 << 63


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 10**9), ("1.5", 15 * 10**8), (".25", 25 * 10**7), ("0", 0), ("2.", 2 * 10**9)]
)
def test_cpus_are_read_in_billionths(text: str, expected: int) -> None:
    assert values.parse_cpus(text) == expected


@pytest.mark.parametrize("text", ["", ".", "x", "-1", "1/3", "1e3", "0.0000000001", "1" * 10])
def test_other_numbers_of_cpus_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", RestartPolicy("no", 0)),
        ("no", RestartPolicy("no", 0)),
        ("always", RestartPolicy("always", 0)),
        ("unless-stopped", RestartPolicy("unless-stopped", 0)),
        ("on-failure", RestartPolicy("on-failure", 0)),
        ("on-failure:3", RestartPolicy("on-failure", 3)),
        ("on-failure:", RestartPolicy("on-failure", 0)),
    ],
)
def test_restart_policies(text: str, expected: RestartPolicy) -> None:
    assert values.parse_restart(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":", "no policy provided before colon"),
        ("on-failure:x", "maximum retry count must be an integer"),
        ("on-failure:1:2", "maximum retry count must be an integer"),
        ("always:3", "maximum retry count can only be used with 'on-failure'"),
        ("on-failure:-1", "maximum retry count cannot be negative"),
        ("sometimes", "unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
    ],
)
def test_other_restart_policies_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        values.parse_restart(text)


def test_streams_to_attach_to() -> None:
    assert values.parse_attach("STDOUT") == "stdout"
    with pytest.raises(InvalidInput, match="valid streams are STDIN, STDOUT and STDERR"):
        values.parse_attach("out")


@given(st.ip_addresses())
def test_addresses_are_known(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert values.is_ip(str(address))
    assert values.is_ip(address.exploded)


@given(st.text(alphabet="0123456789abfg:.%[] ", max_size=24))
def test_an_address_is_what_the_standard_library_takes_for_one(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text)
    except ValueError:
        assert not values.is_ip(text)
    else:
        assert values.is_ip(text) or "%" in str(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.1", ExtraHost("db", "10.0.0.1")),
        ("db=10.0.0.1", ExtraHost("db", "10.0.0.1")),
        ("db:::1", ExtraHost("db", "::1")),
        ("db=::1", ExtraHost("db", "::1")),
        ("db:[::1]", ExtraHost("db", "::1")),
        ("db:host-gateway", ExtraHost("db", "host-gateway")),
    ],
)
def test_extra_hosts(text: str, expected: ExtraHost) -> None:
    assert values.parse_add_host(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'bad format for add-host: ""'),
        ("db", 'bad format for add-host: "db"'),
        (":10.0.0.1", 'bad format for add-host: ":10.0.0.1"'),
        ("db:", 'invalid IP address in add-host: ""'),
        ("db:10.0.0", 'invalid IP address in add-host: "10.0.0"'),
        ("a:b:1.2.3.4", 'invalid IP address in add-host: "b:1.2.3.4"'),
    ],
)
def test_other_hosts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        values.parse_add_host(text)
    assert str(caught.value) == message


def test_dns_servers_are_addresses() -> None:
    assert values.parse_ip("::1") == "::1"
    with pytest.raises(InvalidInput, match="IP address is not correctly formatted: dns"):
        values.parse_ip("dns")


def test_variables_come_from_the_text_or_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "a=b")
    monkeypatch.delenv("GONE", raising=False)
    assert [values.parse_environment(text) for text in ("A=b", "A=", "HERE", "GONE", "a b=c")] == [
        *("A=b", "A=", "HERE=a=b", "GONE", "a b=c")
    ]


@pytest.mark.parametrize("text", ["", "=x"])
def test_a_variable_has_a_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=f"invalid environment variable: {text}"):
        values.parse_environment(text)


def test_labels_are_pairs() -> None:
    assert [values.parse_label(text) for text in ("a=b=c", "a", "a=")] == [("a", "b=c"), ("a", ""), ("a", "")]
    with pytest.raises(InvalidInput, match="invalid label '=x': empty name"):
        values.parse_label("=x")
    with pytest.raises(InvalidInput, match="empty name"):
        values.parse_key_value("=x")


ENVIRONMENT_FILE = b"""\xef\xbb\xbfA=1
# a comment
   # another
\t
  INDENTED=kept  \r
QUOTED="stays 'quoted' $HOME"
HERE
GONE
EMPTY=
HASH=#no comment
UNICODE=\xc3\xa9
LAST=x=y"""


def test_an_environment_file_is_read_as_docker_does() -> None:
    assert list(values.parse_environment_lines(ENVIRONMENT_FILE, "f", {"HERE": "h"})) == [
        "A=1",
        "INDENTED=kept  ",
        "QUOTED=\"stays 'quoted' $HOME\"",
        "HERE=h",
        "EMPTY=",
        "HASH=#no comment",
        "UNICODE=é",
        "LAST=x=y",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"A=1\n=x\n", "invalid env file (f:2): no variable name on line '=x'"),
        (b"\n\nA b=1", "invalid env file (f:3): variable 'A b' contains whitespaces"),
        (b"A =1", "invalid env file (f:1): variable 'A ' contains whitespaces"),
        (b"A\tb", "invalid env file (f:1): variable 'A\tb' contains whitespaces"),
        (b"ok=1\nA=\xff", "invalid env file (f:2): this is no UTF-8"),
    ],
)
def test_a_wrong_line_is_named(data: bytes, message: str) -> None:
    for parse in (
        lambda: list(values.parse_environment_lines(data, "f", {})),
        lambda: [*values.parse_label_lines(data, "f")],
    ):
        with pytest.raises(InvalidInput) as caught:
            parse()
        assert str(caught.value) == message


def test_files_are_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a=b\n\nc\n")
    assert values.load_environment_file(str(path)) == ["a=b"]
    assert values.load_label_file(str(path)) == [("a", "b"), ("c", "")]
    with pytest.raises(InvalidInput, match="open /nope: no such file or directory"):
        values.load_environment_file("/nope")


@given(st.binary(max_size=60))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with suppress(InvalidInput):
        for line in values.parse_environment_lines(data, "f", {}):
            assert line.partition("=")[1]


@given(st.dictionaries(st.text("ABC_", min_size=1, max_size=4), st.text(max_size=6).filter(lambda v: "\n" not in v)))
def test_variables_survive_a_file(variables: dict[str, str]) -> None:
    lines = [f"{name}={value}" for name, value in variables.items() if not value.endswith("\r")]
    assert list(values.parse_environment_lines("\n".join(lines).encode(), "f", {})) == lines


def test_the_last_value_of_a_name_wins() -> None:
    assert values.merge_pairs([("a", "1"), ("b", "2")], [("a", "3")]) == {"a": "3", "b": "2"}


def test_a_choice_is_one_of_a_few() -> None:
    parse = values.one_of("always", "missing", "never")
    assert parse("never") == "never"
    with pytest.raises(InvalidInput, match="must be one of always, missing or never"):
        parse("x")
