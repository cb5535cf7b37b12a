import pytest

from rootless.errors import InvalidInput
from rootless.registry.config import Endpoint, HostConfig, RegistryConfig, endpoints, host_of, is_loopback


def test_docker_hub_listens_elsewhere_than_its_name_says() -> None:
    [hub] = endpoints(RegistryConfig(), "docker.io")
    assert (hub.name, hub.address) == ("docker.io", "registry-1.docker.io")
    [other] = endpoints(RegistryConfig(), "quay.io")
    assert (other.name, other.address) == ("quay.io", "quay.io")


# R09
def test_mirrors_come_first_with_their_own_settings() -> None:
    own = HostConfig(insecure=True)
    config = RegistryConfig(
        {
            "docker.io": HostConfig(("mirror.example:5000", "https://harbor.example/hub/cache/"), ca_file="/hub.pem"),
            "mirror.example:5000": own,
        }
    )
    mirror, harbor, hub = endpoints(config, "docker.io")
    assert mirror == Endpoint("mirror.example:5000", "mirror.example:5000", own, "", is_mirror=True)
    assert harbor == Endpoint("harbor.example", "harbor.example", HostConfig(), "hub/cache/", is_mirror=True)
    assert not hub.is_mirror
    assert hub.settings.ca_file == "/hub.pem"


@pytest.mark.parametrize(
    "text", ["", "http://mirror", "ftp://x", "a b", "user@mirror", "mirror/../x y", "mirror?x", "m:x"]
)
def test_what_cannot_be_a_mirror_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid mirror"):
        endpoints(RegistryConfig({"docker.io": HostConfig((text,))}), "docker.io")


# R12
@pytest.mark.parametrize(
    "address, plain",
    [
        ("localhost", True),
        ("LOCALHOST:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("127.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("registry.example:5000", False),
    ],
)
def test_only_loopback_may_be_plain_unasked(address: str, plain: bool) -> None:
    [endpoint] = endpoints(RegistryConfig(), address)
    assert endpoint.may_be_plain is plain
    assert is_loopback(host_of(address)) is plain
    [asked] = endpoints(RegistryConfig({address: HostConfig(insecure=True)}), address)
    assert asked.may_be_plain
