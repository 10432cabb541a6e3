"""hosts.toml: every example of containerd's document of hosts.toml, and what is refused with its line."""

from pathlib import Path

import pytest

from layerfs.errors import Denied, InvalidSettings
from layerfs.oci import Digest, Repository
from layerfs.registry.hosts import BlobOf, ManifestOf, TagsOf
from layerfs.registry.mirrors import places
from layerfs.registry.mirrors.endpoints import Policy, candidates, endpoints
from layerfs.registry.mirrors.values import HostLink, Mirrors

DIGEST = Digest.of(b"")


def mirrors(tmp_path: Path, text: str, directory: str = "docker.io") -> Mirrors:
    (tmp_path / "certs.d" / directory).mkdir(parents=True, exist_ok=True)
    (tmp_path / "certs.d" / directory / "hosts.toml").write_text(text)
    return places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path / "certs.d")


def urls(found: Mirrors, name: str, **changes: object) -> list[str]:
    policy = Policy(mirrors=found, **changes)  # type: ignore[arg-type]
    repository = Repository.parse(name)
    return [
        f"{'pr'[: one.pulls + one.resolves] if one.pulls else '-'} {one.hosts[0].url(TagsOf(repository))}"
        for one in candidates(policy, repository)
    ]


def hub(url: str, rights: str = "pr", rest: str = "/tags/list") -> str:
    return f"{rights} {url}{rest}"


HUB = "https://registry-1.docker.io/v2/library/alpine/tags/list"
MANY = """
[host."https://mirror.registry"]
  capabilities = ["pull"]
  ca = "/etc/certs/mirror.pem"
  skip_verify = false
  [host."https://mirror.registry".header]
    x-custom-2 = ["value1", "value2"]

[host."https://mirror-bak.registry/us"]
  capabilities = ["pull"]
  skip_verify = true

[host."http://mirror.registry"]
  capabilities = ["pull"]

[host."https://test-1.registry"]
  capabilities = ["pull", "resolve", "push"]
  ca = ["/etc/certs/test-1-ca.pem", "/etc/certs/special.pem"]
  client = [["/etc/certs/client.cert", "/etc/certs/client.key"],["/etc/certs/client.pem", ""]]

[host."https://test-2.registry"]
  client = "/etc/certs/client.pem"

[host."https://test-3.registry"]
  client = ["/etc/certs/client-1.pem", "/etc/certs/client-2.pem"]

[host."https://non-compliant-mirror.registry/v2/upstream"]
  capabilities = ["pull"]
  override_path = true
"""


@pytest.mark.parametrize(
    ("directory", "text", "expected"),
    [
        pytest.param(
            "docker.io",
            'server = "https://docker.io"\n\n[host."https://registry-1.docker.io"]\n'
            '  capabilities = ["pull", "resolve"]\n',
            [f"pr {HUB}", "pr https://docker.io/v2/library/alpine/tags/list"],
            id="simple host config for docker",
        ),
        pytest.param(
            "docker.io",
            'server = "https://registry-1.docker.io"    # Exclude this to not use upstream\n\n'
            '[host."https://public-mirror.example.com"]\n  capabilities = ["pull"]\n'
            '[host."https://docker-mirror.internal"]\n  capabilities = ["pull", "resolve"]\n'
            '  ca = "docker-mirror.crt"\n',
            [
                "p https://public-mirror.example.com/v2/library/alpine/tags/list?ns=docker.io",
                "pr https://docker-mirror.internal/v2/library/alpine/tags/list?ns=docker.io",
                f"pr {HUB}",
            ],
            id="local mirror for docker",
        ),
        pytest.param(
            "_default",
            '[host."https://registry.example.com"]\n  capabilities = ["pull", "resolve"]\n',
            ["pr https://registry.example.com/v2/library/alpine/tags/list?ns=docker.io", f"pr {HUB}"],
            id="default mirror, then the registry itself",
        ),
        pytest.param(
            "_default",
            'server = "https://registry.example.com"\n',
            ["pr https://registry.example.com/v2/library/alpine/tags/list?ns=docker.io"],
            id="only the mirror, as the server",
        ),
        pytest.param(
            "docker.io",
            'server = "https://registry-1.docker.io"\n\n[host."http://192.168.31.250:5000"]\n'
            '  capabilities = ["pull", "resolve", "push"]\n  skip_verify = true\n',
            ["pr http://192.168.31.250:5000/v2/library/alpine/tags/list?ns=docker.io", f"pr {HUB}"],
            id="bypass of verification",
        ),
        pytest.param(
            "docker.io",
            MANY,
            [
                "p https://mirror.registry/v2/library/alpine/tags/list?ns=docker.io",
                "p https://mirror-bak.registry/us/v2/library/alpine/tags/list?ns=docker.io",
                "p http://mirror.registry/v2/library/alpine/tags/list?ns=docker.io",
                "pr https://test-1.registry/v2/library/alpine/tags/list?ns=docker.io",
                "pr https://test-2.registry/v2/library/alpine/tags/list?ns=docker.io",
                "pr https://test-3.registry/v2/library/alpine/tags/list?ns=docker.io",
                "p https://non-compliant-mirror.registry/v2/upstream/library/alpine/tags/list?ns=docker.io",
                f"pr {HUB}",
            ],
            id="the long example of hosts",
        ),
        pytest.param(
            "docker.io",
            'server = "mirror.lan/api"\noverride_path = true',
            ["pr https://mirror.lan/api/library/alpine/tags/list?ns=docker.io"],
            id="a root that is no v2, without a scheme",
        ),
        pytest.param(
            "docker.io",
            'capabilities = ["Pull"]\n[host."https://a.b/"]\ncapabilities = ["push", "referrers"]',
            ["- https://a.b/v2/library/alpine/tags/list?ns=docker.io", f"p {HUB}"],
            id="the server may not resolve, a host not even pull",
        ),
    ],
)
def test_hosts_are_asked_in_the_order_of_the_file(
    tmp_path: Path, directory: str, text: str, expected: list[str]
) -> None:
    assert urls(mirrors(tmp_path, text, directory), "alpine") == expected


def test_a_host_has_its_own_ways(tmp_path: Path) -> None:
    found = candidates(Policy(mirrors=mirrors(tmp_path, MANY)), Repository.parse("alpine"))
    first, second, _, fourth, fifth, sixth, *_ = (one.hosts[0] for one in found)
    certs = Path("/etc/certs")
    assert first.headers == (("x-custom-2", "value1"), ("x-custom-2", "value2"))
    assert first.link == HostLink(authorities=(certs / "mirror.pem",))
    assert second.link == HostLink(skip_verify=True)
    assert fourth.link == HostLink(
        authorities=(certs / "test-1-ca.pem", certs / "special.pem"),
        client=((certs / "client.cert", certs / "client.key"), (certs / "client.pem", None)),
    )
    assert fifth.link.client == ((certs / "client.pem", None),)
    assert sixth.link.client == ((certs / "client-1.pem", None), (certs / "client-2.pem", None))


PROXIED = """
server = "https://my-registry.io"
proxy = "http://different-proxy:8080"
ca = "own.crt"
dial_timeout = "1s"
header = {x-custom-1 = "custom header", x-custom-1-2 = "another custom header"}

[host."https://mirror.my-registry.io"]
  capabilities = ["pull", "resolve"]
  proxy = "http://my-proxy:8080"
  dial_timeout = "200ms"
"""


def test_the_server_has_its_own_ways_too(tmp_path: Path) -> None:
    found = candidates(
        Policy(mirrors=mirrors(tmp_path, PROXIED, "my-registry.io")), Repository.parse("my-registry.io/a")
    )
    mirror, server = (one.hosts[0] for one in found)
    assert mirror.link == HostLink(proxy="http://my-proxy:8080", connect_timeout=0.2)
    assert server.link == HostLink(
        proxy="http://different-proxy:8080",
        connect_timeout=1.0,
        authorities=(tmp_path / "certs.d/my-registry.io/own.crt",),
    )
    assert server.headers == (("x-custom-1", "custom header"), ("x-custom-1-2", "another custom header"))
    assert [one.kind for one in found] == ["mirror", "registry"]


@pytest.mark.parametrize(
    ("directory", "found"),
    [
        ("myregistry.io_5000_", True),
        ("myregistry.io:5000", True),
        ("_default", True),
        ("myregistry.io", False),
    ],
)
def test_a_registry_with_a_port_has_these_directories(tmp_path: Path, directory: str, found: bool) -> None:
    text = '[host."https://mymirror.io"]\n'
    expected = "pr https://mymirror.io/v2/image_name/tags/list?ns=myregistry.io%3A5000"
    asked = urls(mirrors(tmp_path, text, directory), "myregistry.io:5000/image_name")
    assert asked == ([expected] if found else []) + ["pr https://myregistry.io:5000/v2/image_name/tags/list"]


def test_the_more_special_directory_holds(tmp_path: Path) -> None:
    found = Mirrors()
    for name in ("_default", "a.io:5000", "a.io_5000_"):
        found = mirrors(tmp_path, f'server = "https://{name.strip("_").replace(":", "-")}.m"', name)
    assert urls(found, "a.io:5000/x")[0].startswith("pr https://a.io_5000.m/")
    assert urls(found, "b.io/x")[0].startswith("pr https://default.m/")


def test_the_users_directory_comes_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SYSTEM_HOSTS", tmp_path / "etc")
    monkeypatch.setattr(places, "SYSTEM", tmp_path)
    for base, name in (("etc", "a.io"), ("etc", "b.io"), ("home/.config/containerd/certs.d", "a.io")):
        (tmp_path / base / name).mkdir(parents=True)
        (tmp_path / base / name / "hosts.toml").write_text(f'server = "https://{base[:3]}.m"')
    found = places.load({"HOME": str(tmp_path / "home")})
    assert urls(found, "a.io/x") == ["pr https://hom.m/v2/x/tags/list?ns=a.io"]
    assert urls(found, "b.io/x") == ["pr https://etc.m/v2/x/tags/list?ns=b.io"]


def test_without_the_file_certificates_count_as_for_docker(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d/a.io"
    directory.mkdir(parents=True)
    for name in ("ca.crt", "client.cert", "client.key"):
        (directory / name).touch()
    found = places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path / "certs.d")
    (only,) = candidates(Policy(mirrors=found), Repository.parse("a.io/x"))
    assert only.hosts[0].link == HostLink(
        authorities=(directory / "ca.crt",), client=((directory / "client.cert", directory / "client.key"),)
    )
    (directory / "client.key").unlink()
    with pytest.raises(InvalidSettings, match=r"client\.key is missing"):
        places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path / "certs.d")


def test_a_table_of_registries_conf_is_stronger(tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text('[[registry]]\nprefix = "docker.io/library"\nlocation = "a.io/b"')
    mirrors(tmp_path, 'server = "https://other.io"')
    found = places.load({}, conf, tmp_path / "certs.d")
    assert urls(found, "alpine") == ["pr https://a.io/v2/b/alpine/tags/list"]
    assert urls(found, "user/x") == ["pr https://other.io/v2/user/x/tags/list?ns=docker.io"]


def test_mirror_only_forbids_the_registry_itself(tmp_path: Path) -> None:
    found = mirrors(tmp_path, '[host."https://m.io"]', "a.io")
    assert urls(found, "a.io/x", mirror_only=True) == ["pr https://m.io/v2/x/tags/list?ns=a.io"]
    with pytest.raises(Denied, match=r"b\.io/x: mirror_only forbids to ask b\.io itself"):
        urls(found, "b.io/x", mirror_only=True)


def test_tls_that_is_required_leaves_out_who_has_none(tmp_path: Path) -> None:
    found = mirrors(tmp_path, '[host."http://m.io"]', "a.io")
    assert urls(found, "a.io/x", tls_verify=True) == ["pr https://a.io/v2/x/tags/list"]


def test_tags_are_asked_of_those_who_may_resolve(tmp_path: Path) -> None:
    policy = Policy(mirrors=mirrors(tmp_path, '[host."https://m.io"]\ncapabilities = ["pull"]', "a.io"))
    repository = Repository.parse("a.io/x")
    assert [one.name for one in endpoints(policy, ManifestOf(repository, "1"))] == ["a.io"]
    assert [one.name for one in endpoints(policy, ManifestOf(repository, DIGEST))] == ["m.io", "a.io"]
    assert [one.name for one in endpoints(policy, BlobOf(repository, DIGEST))] == ["m.io", "a.io"]


def test_nobody_who_may_resolve_is_an_error(tmp_path: Path) -> None:
    policy = Policy(
        mirrors=mirrors(tmp_path, 'server = "https://m.io"\ncapabilities = ["pull"]', "a.io"),
    )
    with pytest.raises(Denied, match=r"none of m\.io may say what a tag means .*hosts\.toml, line 1"):
        endpoints(policy, ManifestOf(Repository.parse("a.io/x"), "1"))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('[host."https://a.b"]\ncapabilities = ["pull", "fly"]', 2, "'fly'"),
        ('[host."ftp://a.b"]', 1, "not an http"),
        ('[host."https://u:planted@a.b"]', 1, "user, query or fragment"),
        ('[host."http://a.b"]\n[host."http://a.b".host."http://c.d"]', 2, "unknown key"),
        ('[host."http://a.b"]\n  capabilities = ["pull"]\n  [host."http://c.d"]\n  ca = 1', 4, "ca"),
        ('\nserver = "https://a.b"\nskip_verify = "no"', 3, "true or false"),
        ('[host."http://a.b"]\nclient = [["a", "b", "c"]]', 2, "3 files"),
        ('[host."http://a.b"]\ndial_timeout = "soon"', 2, "no duration"),
        ('[host."http://a.b"]\nproxy = "http://u:planted@h/path?planted"', 2, "socks5"),
        ('[host."http://a.b".header]\nRange = "bytes=0-"', 2, "no header that may be set"),
        ('[host."http://a.b".header]\nx = "a\\nplanted"', 2, "no header can have"),
        ('[host."http://a.b"]\ncredentials = "x"', 2, "unknown key"),
    ],
)
def test_what_cannot_be_honoured_is_an_error_with_its_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    with pytest.raises(InvalidSettings, match=problem) as caught:
        mirrors(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/certs.d/docker.io/hosts.toml, line {line}: ")
    assert "planted" not in str(caught.value).partition(": ")[2]
