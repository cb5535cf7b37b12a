import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.spec.reference import Reference, parse_reference

F = "f" * 64
D = f"sha256:{F}"
D512 = "sha512:" + "f" * 128
HEX64 = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"
LONG = "thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev"

# text, domain, path, tag, digest, familiar
VALID = [
    ("alpine", "docker.io", "library/alpine", None, None, "alpine"),
    ("alpine:3.20", "docker.io", "library/alpine", "3.20", None, "alpine:3.20"),
    (f"alpine@{D}", "docker.io", "library/alpine", None, D, f"alpine@{D}"),
    (f"alpine:3@{D}", "docker.io", "library/alpine", "3", D, f"alpine:3@{D}"),
    ("d/docker", "docker.io", "d/docker", None, None, "d/docker"),
    ("jess/t", "docker.io", "jess/t", None, None, "jess/t"),
    ("docker/docker", "docker.io", "docker/docker", None, None, "docker/docker"),
    ("library/debian", "docker.io", "library/debian", None, None, "debian"),
    ("library/foo/bar", "docker.io", "library/foo/bar", None, None, "library/foo/bar"),
    ("store/foo/bar", "docker.io", "store/foo/bar", None, None, "store/foo/bar"),
    ("other/library", "docker.io", "other/library", None, None, "other/library"),
    ("nonlibrary/ubuntu", "docker.io", "nonlibrary/ubuntu", None, None, "nonlibrary/ubuntu"),
    ("docker.io/debian", "docker.io", "library/debian", None, None, "debian"),
    ("docker.io/library/debian", "docker.io", "library/debian", None, None, "debian"),
    ("docker.io/docker/docker", "docker.io", "docker/docker", None, None, "docker/docker"),
    ("index.docker.io/debian", "docker.io", "library/debian", None, None, "debian"),
    ("index.docker.io/library/debian:8", "docker.io", "library/debian", "8", None, "debian:8"),
    ("index.docker.io/fooo/bar", "docker.io", "fooo/bar", None, None, "fooo/bar"),
    ("ubuntu-12.04-base", "docker.io", "library/ubuntu-12.04-base", None, None, "ubuntu-12.04-base"),
    (f"docker.io/{HEX64}", "docker.io", f"library/{HEX64}", None, None, HEX64),
    (HEX64[:-1], "docker.io", f"library/{HEX64[:-1]}", None, None, HEX64[:-1]),
    (HEX64 + "a", "docker.io", f"library/{HEX64}a", None, None, HEX64 + "a"),
    (LONG, "docker.io", f"library/{LONG}", None, None, LONG),
    (f"{HEX64}:tag", "docker.io", f"library/{HEX64}", "tag", None, f"{HEX64}:tag"),
    ("localhost/app", "localhost", "app", None, None, "localhost/app"),
    ("localhost:5000/app:1", "localhost:5000", "app", "1", None, "localhost:5000/app:1"),
    ("localhost", "docker.io", "library/localhost", None, None, "localhost"),
    ("localhost:5000", "docker.io", "library/localhost", "5000", None, "localhost:5000"),
    ("localhost.localdomain/a", "localhost.localdomain", "a", None, None, "localhost.localdomain/a"),
    ("127.0.0.1:5000/debian", "127.0.0.1:5000", "debian", None, None, "127.0.0.1:5000/debian"),
    ("127.0.0.1:5000/library/debian", "127.0.0.1:5000", "library/debian", None, None, "127.0.0.1:5000/library/debian"),
    ("192.168.0.1", "docker.io", "library/192.168.0.1", None, None, "192.168.0.1"),
    ("192.168.0.1:80", "docker.io", "library/192.168.0.1", "80", None, "192.168.0.1:80"),
    ("192.168.0.1:8/debian", "192.168.0.1:8", "debian", None, None, "192.168.0.1:8/debian"),
    ("192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050", None, "192.168.1.1:5000/repo:5050"),
    ("[fc00::1]:5000/docker", "[fc00::1]:5000", "docker", None, None, "[fc00::1]:5000/docker"),
    ("[2001:db8:1:2:3:4:5:6]/r:tag", "[2001:db8:1:2:3:4:5:6]", "r", "tag", None, "[2001:db8:1:2:3:4:5:6]/r:tag"),
    (f"[2001:db8::1]:5000/r:t@{D}", "[2001:db8::1]:5000", "r", "t", D, f"[2001:db8::1]:5000/r:t@{D}"),
    ("[::1]:5000/repo", "[::1]:5000", "repo", None, None, "[::1]:5000/repo"),
    ("test.com/repo:tag", "test.com", "repo", "tag", None, "test.com/repo:tag"),
    ("test:5000/repo", "test:5000", "repo", None, None, "test:5000/repo"),
    (f"test:5000/repo@{D}", "test:5000", "repo", None, D, f"test:5000/repo@{D}"),
    ("test_com", "docker.io", "library/test_com", None, None, "test_com"),
    ("test_com/foo", "docker.io", "test_com/foo", None, None, "test_com/foo"),
    ("test.com:tag", "docker.io", "library/test.com", "tag", None, "test.com:tag"),
    ("test-com:8080/foo", "test-com:8080", "foo", None, None, "test-com:8080/foo"),
    ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080", None, "foo_bar.com:8080"),
    ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080", None, "foo/foo_bar.com:8080"),
    ("xn--n3h.com:18080/foo", "xn--n3h.com:18080", "foo", None, None, "xn--n3h.com:18080/foo"),
    (f"xn--7o8h.com/i:xn--7o8h.com@{D512}", "xn--7o8h.com", "i", "xn--7o8h.com", D512, None),
    ("sub-dom1.foo.com/bar/baz/quux:t", "sub-dom1.foo.com", "bar/baz/quux", "t", None, None),
    ("b.gcr.io/test.example.com/my-app:v.1", "b.gcr.io", "test.example.com/my-app", "v.1", None, None),
    ("lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase", None, "lowercase:Uppercase"),
    ("Docker/docker", "Docker", "docker", None, None, "Docker/docker"),
    ("FOO/bar", "FOO", "bar", None, None, "FOO/bar"),
    ("docker---rules/docker", "docker.io", "docker---rules/docker", None, None, "docker---rules/docker"),
    ("dock__er/docker", "docker.io", "dock__er/docker", None, None, "dock__er/docker"),
    ("a:_underscore-first.ok", "docker.io", "library/a", "_underscore-first.ok", None, "a:_underscore-first.ok"),
    ("a:" + "t" * 128, "docker.io", "library/a", "t" * 128, None, "a:" + "t" * 128),
    ("x.io/" + "a/" * 127 + "a", "x.io", "a/" * 127 + "a", None, None, None),
]

FORMAT = "invalid reference format"
INVALID = [
    ("", FORMAT),
    (":justtag", FORMAT),
    (f"@{D}", FORMAT),
    ("-foo", FORMAT),
    ("-docker/docker", FORMAT),
    ("docker-/docker", FORMAT),
    ("-docker.io/docker/docker", FORMAT),
    ("docker///docker", FORMAT),
    ("docker.io/docker///docker", FORMAT),
    ("docker/", FORMAT),
    ("/docker", FORMAT),
    ("____/____", FORMAT),
    ("_docker/_docker", FORMAT),
    ("dock..er/docker", FORMAT),
    ("dock_.er/docker", FORMAT),
    ("dock-.er/docker", FORMAT),
    ("dock___er/docker", FORMAT),
    ("aa/asdf$$^/aa", FORMAT),
    ("https://github.com/docker/docker", FORMAT),
    ("[fc00::1]", FORMAT),
    ("[fc00::1]:5000", FORMAT),
    ("fc00::1:5000/debian", FORMAT),
    ("[fe80::1%eth0]:5000/debian", FORMAT),
    ("[2001:db8:3:4::192.0.2.33]:5000/debian", FORMAT),
    ("my_host.example/app", FORMAT),
    ("a:", FORMAT),
    ("a:-tag", FORMAT),
    ("a:.tag", FORMAT),
    ("a:t/b", FORMAT),
    ("a:" + "t" * 129, FORMAT),
    ("a:tag:tag", FORMAT),
    ("a@", FORMAT),
    ("a@sha256:fff", FORMAT),
    (f"a@{D}@{D}", FORMAT),
    ("a\n", FORMAT),
    ("alpine:3.20\n", FORMAT),
    ("a b", FORMAT),
    ("a\0", FORMAT),
    ("\N{LATIN SMALL LETTER E WITH ACUTE}t", FORMAT),
    ("a:\N{LATIN SMALL LETTER E WITH ACUTE}", FORMAT),
    ("x.io/../etc", FORMAT),
    ("repo@sha256:" + "f" * 34, f"{FORMAT}: invalid checksum digest length: 'sha256:" + "f" * 34 + "'"),
    ("repo@sha256:" + "F" * 64, f"{FORMAT}: invalid checksum digest format: 'sha256:" + "F" * 64 + "'"),
    (f"name@invaliddigest:{F}", f"{FORMAT}: unsupported digest algorithm: 'invaliddigest:{F}'"),
    ("Uppercase:tag", f"{FORMAT}: repository name (library/Uppercase) must be lowercase"),
    ("docker/Docker", f"{FORMAT}: repository name (docker/Docker) must be lowercase"),
    ("docker.io/docker/Docker", f"{FORMAT}: repository name (docker/Docker) must be lowercase"),
    ("test:5000/Upper/lower:tag", f"{FORMAT}: repository name (Upper/lower) must be lowercase"),
    (HEX64, f"invalid repository name ({HEX64}), cannot specify 64-byte hexadecimal strings"),
    ("x.io/" + "a/" * 128 + "a", "repository name must not be more than 255 characters"),
    ("a" * 248, "repository name must not be more than 255 characters"),
]


@pytest.mark.parametrize("text, domain, path, tag, digest, familiar", VALID)
def test_a_reference_is_read_as_docker_reads_it(
    text: str, domain: str, path: str, tag: str | None, digest: str | None, familiar: str | None
) -> None:
    reference = parse_reference(text)
    assert reference == (domain, path, tag, digest)
    assert reference.familiar == (familiar or text)
    assert parse_reference(str(reference)) == reference
    if reference.familiar_name != HEX64:
        assert parse_reference(reference.familiar) == reference


# R02
@pytest.mark.parametrize("text, message", INVALID)
def test_what_docker_refuses_is_refused_in_its_words(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reference(text)
    assert str(caught.value) == message


def test_the_default_tag_is_added_only_to_a_bare_name() -> None:
    assert parse_reference("alpine").with_default_tag().familiar == "alpine:latest"
    assert parse_reference("alpine:3").with_default_tag().familiar == "alpine:3"
    assert parse_reference(f"alpine@{D}").with_default_tag().tag is None


def test_the_canonical_form_is_whole() -> None:
    reference = parse_reference(f"alpine:3@{D}")
    assert reference.name == "docker.io/library/alpine"
    assert str(reference) == f"docker.io/library/alpine:3@{D}"


COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
DOMAIN = st.from_regex(
    r"[a-z0-9]{1,5}(\.[A-Za-z0-9]{1,5}){1,2}(:[0-9]{1,5})?|\[[0-9a-f]{0,3}:[0-9a-f:]{1,6}\]", fullmatch=True
)
TAG = st.none() | st.from_regex(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,20}", fullmatch=True)


# R16
@given(DOMAIN, st.lists(COMPONENT, min_size=2, max_size=5), TAG, st.none() | st.just(D))
def test_every_whole_reference_survives_writing_and_reading(
    domain: str, path: list[str], tag: str | None, digest: str | None
) -> None:
    reference = Reference(domain, "/".join(path), tag, digest)  # type: ignore[arg-type]
    assert parse_reference(str(reference)) == reference


# R16
@given(st.lists(COMPONENT, min_size=1, max_size=3), TAG)
def test_a_name_without_a_registry_is_always_docker_hub_s(path: list[str], tag: str | None) -> None:
    assume(len(path) == 1 or ("." not in path[0] and path[0] != "localhost"))
    assert parse_reference("/".join(path) + (f":{tag}" if tag else "")).domain == "docker.io"


@given(st.text(alphabet="aA0./:@-_[]\n \0\u00e9", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_reference_or_invalid_input(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidInput:
        return
    assert parse_reference(str(reference)) == reference
    assert ".." not in str(reference).split("/")
