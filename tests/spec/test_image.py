import json
import pickle
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData, NotFound
from rootless.spec import image
from rootless.spec.digest import DiffID, digest_of
from rootless.spec.image import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Healthcheck,
    ImageConfig,
    Index,
    Manifest,
    layer_compression,
    layers_with_diff_ids,
    parse_image_config,
    parse_manifest,
    select_manifest,
)
from rootless.spec.platform import Platform, parse_platform

JSON = dict[str, Any]
DIGEST = digest_of(b"blob")
BAD_DIGESTS = ["sha256:../../x", DIGEST.upper(), DIGEST[:-1], "a" * 64, "md5:" + "a" * 32, "", 7]


def descriptor(media_type: str = f"{OCI_LAYER}+gzip", **more: object) -> JSON:
    return {"mediaType": media_type, "digest": DIGEST, "size": 4, **more}


def manifest(**changes: object) -> JSON:
    return {"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": [descriptor()], **changes}


def index(*manifests: JSON, **changes: object) -> JSON:
    return {"schemaVersion": 2, "manifests": list(manifests), **changes}


def entry(platform: str, **more: object) -> JSON:
    os_name, architecture, variant = [*platform.split("/"), ""][:3]
    words = {"os": os_name, "architecture": architecture, **({"variant": variant} if variant else {})}
    return descriptor(OCI_MANIFEST, platform=words, digest=digest_of(platform.encode()), **more)


def parse(document: JSON, content_type: str = OCI_MANIFEST) -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), content_type)


def config(config: JSON | None = None, **changes: object) -> JSON:
    rootfs = {"type": "layers", "diff_ids": [DIGEST]}
    return {"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": config, **changes}


def parse_config(document: JSON) -> ImageConfig:
    return parse_image_config(json.dumps(document).encode())


@pytest.mark.parametrize(
    "media_type, config_type, layer_type",
    [(OCI_MANIFEST, OCI_CONFIG, f"{OCI_LAYER}+zstd"), (DOCKER_MANIFEST, DOCKER_CONFIG, f"{DOCKER_LAYER}.gzip")],
)
def test_oci_and_docker_manifests_are_read_alike(media_type: str, config_type: str, layer_type: str) -> None:
    document = manifest(config=descriptor(config_type), layers=[descriptor(layer_type)] * 3, annotations={"a": "b"})
    for own in ({}, {"mediaType": media_type}):
        parsed = parse({**document, **own}, media_type)
        assert isinstance(parsed, Manifest)
        assert parsed.media_type == media_type
        assert parsed.is_image
        assert parsed.config == (config_type, DIGEST, 4, None, {}, ())
        assert [layer.media_type for layer in parsed.layers] == [layer_type] * 3
        assert parsed.annotations == {"a": "b"}
        assert pickle.loads(pickle.dumps(parsed)) == parsed  # noqa: S301  (unpacking runs in other processes)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_lists_manifests_with_their_platforms(media_type: str) -> None:
    parsed = parse(index(entry("linux/amd64"), entry("linux/arm64/v8", urls=["https://x"])), media_type)
    assert isinstance(parsed, Index)
    assert [str(item.platform) for item in parsed.manifests] == ["linux/amd64", "linux/arm64"]
    assert parsed.manifests[1].urls == ("https://x",)


def test_a_content_type_s_case_and_parameters_do_not_matter() -> None:
    assert isinstance(parse(manifest(), f"{OCI_MANIFEST.upper()}; charset=utf-8"), Manifest)


def test_a_file_server_that_knows_no_types_is_believed_if_the_document_says_what_it_is() -> None:
    for generic in ("application/json", "text/plain", "", "application/octet-stream"):
        assert isinstance(parse(manifest(mediaType=OCI_MANIFEST), generic), Manifest)
        with pytest.raises(CorruptData, match="unsupported manifest media type"):
            parse(manifest(), generic)


def test_an_artifact_that_is_no_image_says_so() -> None:
    parsed = parse(manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json"), artifactType="chart"))
    assert isinstance(parsed, Manifest)
    assert not parsed.is_image
    assert parsed.artifact_type == "chart"


# R03
@pytest.mark.parametrize(
    "document, content_type",
    [
        (manifest(manifests=[]), OCI_MANIFEST),
        (manifest(manifests=None), OCI_MANIFEST),
        (manifest(fsLayers=[]), OCI_MANIFEST),
        (index(layers=[]), OCI_INDEX),
        (index(config=descriptor(OCI_CONFIG)), OCI_INDEX),
        (index(fsLayers=[]), DOCKER_INDEX),
        ({**manifest(), **index()}, OCI_MANIFEST),
        ({**manifest(), **index()}, OCI_INDEX),
        (manifest(mediaType=OCI_INDEX), OCI_MANIFEST),
        (manifest(mediaType=OCI_MANIFEST), DOCKER_MANIFEST),
        (index(mediaType=OCI_MANIFEST), OCI_INDEX),
        (manifest(mediaType=OCI_MANIFEST + " "), OCI_MANIFEST),
        (manifest(Layers=[]), OCI_MANIFEST),
        (manifest(MANIFESTS=[]), OCI_MANIFEST),
        (index(Manifests=[]), OCI_INDEX),
        (manifest(MediaType=OCI_INDEX), OCI_MANIFEST),
        (manifest(layers=[descriptor(Digest=digest_of(b"other"))]), OCI_MANIFEST),
    ],
)
def test_a_document_that_could_be_two_things_is_refused(document: JSON, content_type: str) -> None:
    with pytest.raises(CorruptData, match="ambiguous"):
        parse(document, content_type)


# R03
def test_duplicate_keys_are_refused() -> None:
    text = json.dumps(manifest())
    with pytest.raises(CorruptData, match="duplicate key 'layers'"):
        parse_manifest(f'{text[:-1]}, "layers": []}}'.encode(), OCI_MANIFEST)


# R03
@pytest.mark.parametrize("document", [manifest(), index()])
def test_a_document_is_held_to_the_type_it_was_announced_as(document: JSON) -> None:
    other = OCI_INDEX if "layers" in document else OCI_MANIFEST
    with pytest.raises(CorruptData):
        parse(document, other)


def test_schema_1_is_refused_with_its_name() -> None:
    for document, content_type in [
        ({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"schemaVersion": 1, "fsLayers": []}, "application/json"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+json"),
    ]:
        with pytest.raises(CorruptData, match="schema 1, which is not supported"):
            parse(document, content_type)


# R02
@pytest.mark.parametrize("bad", BAD_DIGESTS)
def test_a_bad_digest_is_refused_wherever_it_stands(bad: object) -> None:
    documents: list[tuple[JSON, str]] = [
        (manifest(config=descriptor(OCI_CONFIG, digest=bad)), OCI_MANIFEST),
        (manifest(layers=[descriptor(), descriptor(digest=bad)]), OCI_MANIFEST),
        (manifest(subject=descriptor(OCI_MANIFEST, digest=bad)), OCI_MANIFEST),
        (index(descriptor(OCI_MANIFEST, digest=bad)), OCI_INDEX),
        (index(subject=descriptor(OCI_MANIFEST, digest=bad)), OCI_INDEX),
    ]
    for document, content_type in documents:
        with pytest.raises(CorruptData, match="digest"):
            parse(document, content_type)
    with pytest.raises(CorruptData, match="diff_id"):
        parse_config(config(rootfs={"type": "layers", "diff_ids": [DIGEST, bad]}))


# R04
def test_embedded_data_must_be_what_the_digest_names() -> None:
    good = b64encode(b"blob").decode()
    assert isinstance(parse(manifest(config=descriptor(OCI_CONFIG, data=good))), Manifest)
    for data, size in [(b64encode(b"evil").decode(), 4), (good, 5), (b64encode(b"blo").decode(), 4), ("", 4)]:
        with pytest.raises(CorruptData, match="embedded data is not what"):
            parse(manifest(config=descriptor(OCI_CONFIG, data=data, size=size)))
    for data in ("!!!!", good + "\n", f"*{good}", "Ymx", "\u00e9"):
        with pytest.raises(CorruptData, match="not base64"):
            parse(manifest(layers=[descriptor(data=data)]))


# R04
def test_layers_and_diff_ids_must_pair_up() -> None:
    parsed, image_config = parse(manifest()), parse_config(config())
    assert isinstance(parsed, Manifest)
    assert layers_with_diff_ids(parsed, image_config) == ((parsed.layers[0], DiffID(DIGEST)),)
    with pytest.raises(CorruptData, match="the manifest has 0 layers, the image config 1"):
        layers_with_diff_ids(parsed._replace(layers=()), image_config)


# R14
def test_lists_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorruptData, match="layers has 15000 entries, more than 1000"):
        parse(manifest(layers=[descriptor()] * 15_000))
    with pytest.raises(CorruptData, match="manifests has 1001 entries, more than 1000"):
        parse(index(*[descriptor(OCI_MANIFEST)] * 1001), OCI_INDEX)
    with pytest.raises(CorruptData, match="history has 1000000 entries, more than 10000"):
        parse_config(config(history=[{}] * 1_000_000))
    with pytest.raises(CorruptData, match="diff_ids has 1001 entries"):
        parse_config(config(rootfs={"type": "layers", "diff_ids": [DIGEST] * 1001}))
    with pytest.raises(CorruptData, match="Env has 10001 entries"):
        parse_config(config({"Env": ["A=b"] * 10_001}))
    with pytest.raises(CorruptData, match="Labels has 10001 entries"):
        parse_config(config({"Labels": {str(n): "" for n in range(10_001)}}))


# R05
def test_documents_over_4_mib_are_refused() -> None:
    padding = "x" * (4 << 20)
    with pytest.raises(CorruptData, match=r"^manifest is larger than 4194304 bytes"):
        parse(manifest(annotations={"a": padding}))
    with pytest.raises(CorruptData, match=r"^image config is larger than 4194304 bytes"):
        parse_config(config({"Labels": {"a": padding}}))


@pytest.mark.parametrize(
    "document",
    [
        manifest(schemaVersion=3),
        manifest(schemaVersion=None),
        manifest(schemaVersion="2"),
        manifest(schemaVersion=2.0),
        manifest(config=None),
        manifest(layers=None),
        manifest(layers={}),
        manifest(layers=[[]]),
        manifest(config=[]),
        manifest(config=descriptor(OCI_CONFIG, size=None)),
        manifest(config=descriptor(OCI_CONFIG, size=-1)),
        manifest(config=descriptor(OCI_CONFIG, size=1 << 63)),
        manifest(config=descriptor(OCI_CONFIG, size=True)),
        manifest(config=descriptor(OCI_CONFIG, size="4")),
        manifest(config=descriptor(OCI_CONFIG, size=4.5)),
        manifest(config=descriptor("")),
        manifest(config={**descriptor(), "mediaType": 3}),
        manifest(config=descriptor(urls="https://x")),
        manifest(config=descriptor(urls=[1])),
        manifest(config=descriptor(annotations={"a": 1})),
        manifest(config=descriptor(annotations=[])),
        manifest(config=descriptor(platform="linux")),
        manifest(config=descriptor(platform={"os": 1})),
        manifest(subject=4),
    ],
)
def test_wrong_types_in_a_manifest_are_corrupt(document: JSON) -> None:
    with pytest.raises(CorruptData):
        parse(document)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"3", b""])
def test_what_is_no_object_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData, match=r"^manifest is not"):
        parse_manifest(data, OCI_MANIFEST)
    with pytest.raises(CorruptData, match=r"^image config is not"):
        parse_image_config(data)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_value_in_any_place_is_read_or_corrupt(data: st.DataObject) -> None:
    """Puts a random value somewhere in each kind of document: no other exception comes out."""
    for base, content_type in [(manifest(subject=descriptor()), OCI_MANIFEST), (index(entry("linux/arm")), OCI_INDEX)]:
        document = json.loads(json.dumps(base))
        _mutate(document, data)
        try:
            parsed = parse(document, content_type)
            if isinstance(parsed, Index):
                select_manifest(parsed, Platform("linux", "amd64"))
        except (CorruptData, NotFound):
            pass
    document = json.loads(json.dumps(FULL_CONFIG))
    _mutate(document, data)
    try:
        parse_config(document)
    except CorruptData:
        pass


def _mutate(node: Any, data: st.DataObject) -> None:
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)) or data.draw(st.booleans()):
            node[key] = data.draw(ANY_JSON)
            return
        node = node[key]


# -- choosing from an index ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "there, wanted, chosen",
    [
        ("linux/amd64 linux/arm64", "linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v8 linux/amd64", "linux/aarch64", "linux/arm64/v8"),
        ("linux/arm/v5 linux/arm/v6", "linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v6 linux/arm/v7 linux/arm/v8", "linux/arm/v7", "linux/arm/v7"),
        ("linux/arm", "linux/armhf", "linux/arm"),
        ("linux/amd64/v3 linux/amd64", "linux/amd64", "linux/amd64"),
        ("linux/amd64 linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v2"),
        ("linux/386 windows/amd64", "linux/amd64", "linux/386"),
        ("linux/x86_64", "linux/amd64", "linux/x86_64"),
    ],
)
def test_the_best_platform_is_selected(there: str, wanted: str, chosen: str) -> None:
    parsed = parse(index(*[entry(platform) for platform in there.split()]), OCI_INDEX)
    assert isinstance(parsed, Index)
    assert select_manifest(parsed, parse_platform(wanted)).digest == digest_of(chosen.encode())


def test_nothing_fitting_is_not_found_with_a_list_of_what_there_is() -> None:
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    parsed = parse(
        index(
            entry("linux/s390x"),
            entry("windows/amd64"),
            entry("unknown/unknown"),
            entry("linux/arm64", annotations=attestation),
            descriptor("application/vnd.example.signature", platform={"os": "linux", "architecture": "arm64"}),
            entry("evil\x1b]52;\x07/x"),
        ),
        OCI_INDEX,
    )
    assert isinstance(parsed, Index)
    with pytest.raises(NotFound) as caught:
        select_manifest(parsed, Platform("linux", "arm64"))
    assert str(caught.value) == "no matching manifest for linux/arm64 in the manifest list entries"
    assert caught.value.hint == "the image is there for evil\\x1b]52;\\x07/x, linux/s390x, windows/amd64"  # R15


def test_an_only_manifest_without_a_platform_is_taken_and_one_of_several_is_not() -> None:
    silent = descriptor(OCI_MANIFEST)
    alone, two = (parse(index(*[silent] * n, entry("linux/s390x")), OCI_INDEX) for n in (1, 2))
    assert isinstance(alone, Index)
    assert isinstance(two, Index)
    assert select_manifest(alone, Platform("linux", "amd64")).digest == DIGEST
    with pytest.raises(NotFound):
        select_manifest(two, Platform("linux", "amd64"))


def test_an_image_that_insists_on_a_feature_is_left_to_those_who_have_it() -> None:
    picky = descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64", "os.features": ["erofs"]})
    parsed = parse(index(picky, entry("linux/amd64")), OCI_INDEX)
    assert isinstance(parsed, Index)
    assert select_manifest(parsed, Platform("linux", "amd64")).digest == digest_of(b"linux/amd64")


# -- configs ------------------------------------------------------------------------------------------------------

FULL_CONFIG = config(
    {
        "User": "app:staff",
        "ExposedPorts": {"80/tcp": {}, "53/udp": None},
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/init", "--"],
        "Cmd": [],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b", "c": None},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000, "Retries": 3},
        "Shell": ["/bin/bash", "-c"],
        "ArgsEscaped": True,
        "OnBuild": ["RUN true"],
    },
    created="2026-01-02T03:04:05.678Z",
    author="somebody",
    variant="v1",
    history=[{"created_by": "ADD x", "created": "2026-01-02T03:04:05Z"}, {"empty_layer": True, "comment": "c"}],
)


def test_every_field_of_a_config_is_typed_and_the_document_is_kept() -> None:
    data = json.dumps(FULL_CONFIG, indent=3).encode()
    parsed = parse_image_config(data)
    assert parsed.raw == data
    assert parsed.document == FULL_CONFIG
    assert parsed.platform == Platform("linux", "amd64")
    assert (parsed.created, parsed.author) == ("2026-01-02T03:04:05.678Z", "somebody")
    assert parsed.diff_ids == (DiffID(DIGEST),)
    assert parsed.history == (
        ("2026-01-02T03:04:05Z", "ADD x", "", "", False),
        (None, "", "", "c", True),
    )
    assert parsed.config == image.RuntimeConfig(  # noqa: S604  (a field named shell)
        user="app:staff",
        exposed_ports=("80/tcp", "53/udp"),
        env=("PATH=/bin", "EMPTY="),
        entrypoint=("/init", "--"),
        cmd=(),
        volumes=("/data",),
        working_dir="/srv",
        labels={"a": "b", "c": ""},
        stop_signal="SIGQUIT",
        healthcheck=Healthcheck(("CMD-SHELL", "true"), 30_000_000_000, 0, 0, 0, 3),
        shell=("/bin/bash", "-c"),
        args_escaped=True,
        on_build=("RUN true",),
    )


@pytest.mark.parametrize("empty", [None, {}, {"Env": None, "Cmd": None, "Entrypoint": None, "Labels": None}])
def test_a_config_that_asks_for_nothing_has_the_defaults(empty: JSON | None) -> None:
    parsed = parse_config(config(empty)).config
    assert parsed == image.RuntimeConfig()
    assert parsed.entrypoint is None


# B11
def test_malformed_environment_entries_are_dropped() -> None:
    kept = ["PATH=/bin", "A=b=c", "MULTI=one\ntwo", "EMPTY=", "with space=x", "é=ü"]
    dropped = ["NOEQUALS", "*", "AWS_*", "SSH*=x", "=x", "", "=", "A\nB=x", "A\0=x", "A=\0", "\x1b[2J=x"]
    assert parse_config(config({"Env": [*kept, *dropped]})).config.env == tuple(kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"User": 0},
        {"Env": "A=b"},
        {"Env": {"A": "b"}},
        {"Env": [1]},
        {"Env": [None]},
        {"Entrypoint": "/bin/sh"},
        {"Cmd": [["x"]]},
        {"ExposedPorts": ["80"]},
        {"ExposedPorts": {"80": 1}},
        {"Volumes": {"/x": "/host"}},
        {"WorkingDir": []},
        {"Labels": {"a": 1}},
        {"Labels": []},
        {"StopSignal": 9},
        {"Healthcheck": []},
        {"Healthcheck": {"Test": "true"}},
        {"Healthcheck": {"Interval": "30s"}},
        {"Healthcheck": {"Interval": -1}},
        {"Healthcheck": {"Retries": 1.5}},
        {"Shell": "/bin/sh"},
        {"ArgsEscaped": "yes"},
        {"OnBuild": {}},
    ],
)
def test_wrong_types_in_the_runtime_config_are_corrupt(wrong: JSON) -> None:
    with pytest.raises(CorruptData, match=r"^image config: config: "):
        parse_config(config(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rootfs": None},
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"type": "layers+base", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": DIGEST}},
        {"config": []},
        {"history": {}},
        {"history": [1]},
        {"history": [{"empty_layer": "yes"}]},
        {"created": 0},
        {"os": []},
        {"architecture": 64},
    ],
)
def test_wrong_types_around_it_are_corrupt(wrong: JSON) -> None:
    with pytest.raises(CorruptData, match=r"^image config: "):
        parse_config(config(**wrong))


# R08
def test_layer_types_tell_the_compression_and_the_rest_is_refused() -> None:
    assert layer_compression(OCI_LAYER) == ""
    assert layer_compression(f"{OCI_LAYER}+zstd") == "zstd"
    assert layer_compression(f"{DOCKER_LAYER}.gzip") == "gzip"
    for unknown in ("", "application/vnd.in-toto+json", f"{OCI_LAYER}+xz", OCI_CONFIG):
        with pytest.raises(CorruptData, match="unsupported layer media type"):
            layer_compression(unknown)
