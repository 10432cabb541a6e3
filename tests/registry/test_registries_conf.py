"""registries.conf: every example of containers-registries.conf(5), and what is refused with its line."""

from pathlib import Path

import pytest

from layerfs.errors import Denied, InvalidSettings
from layerfs.oci import Digest, Repository
from layerfs.registry.hosts import BlobOf, ManifestOf
from layerfs.registry.mirrors import places
from layerfs.registry.mirrors.endpoints import Endpoint, Policy, candidates, endpoints

DIGEST = Digest.of(b"")

# The long example of the page, with what it says is asked.
PAGE = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
"""
REMAPPED = 'registry = [{prefix = "example.com/foo", location = "internal-registry-for-example.net/bar"}]'
WILDCARD = """
[[registry]]
prefix = "*.example.com"
[[registry.mirror]]
location = "mirror.local/all"
"""
HUB = """
[[registry]]
prefix = "docker.io/library/alpine"
location = "quay.io/libpod/alpine"
[[registry]]
prefix = "docker.io/user"
location = "docker.io/other"
"""


def policy(text: str, tmp_path: Path) -> Policy:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    return Policy(mirrors=places.load({}, path, _empty(tmp_path)))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "no-hosts").mkdir(exist_ok=True)
    return tmp_path / "no-hosts"


def asked(found: tuple[Endpoint, ...], name: str) -> list[str]:
    repository = Repository.parse(name)
    return [f"{one.hosts[0].name}/{one.hosts[0].path_of(repository)}" for one in found]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        pytest.param(
            PAGE,
            "example.com/foo/image",
            [
                "example-mirror-0.local/mirror-for-foo/image",
                "example-mirror-1.local/mirrors/foo/image",
                "internal-registry-for-example.com/bar/image",
            ],
            id="the example, in this order",
        ),
        pytest.param(
            PAGE,
            "registry.com/image",
            ["mirror.registry.com/image", "registry.com/image"],
            id="its own mirrors",
        ),
        pytest.param(PAGE, "example.com/food/image", ["example.com/food/image"], id="a whole component"),
        pytest.param(
            REMAPPED,
            "example.com/foo/myimage",
            ["internal-registry-for-example.net/bar/myimage"],
            id="a prefix has another location",
        ),
        pytest.param(
            WILDCARD,
            "blah.example.com/foo/myimage",
            ["mirror.local/all/foo/myimage", "blah.example.com/foo/myimage"],
            id="a wildcard without location leaves the name",
        ),
        pytest.param(
            WILDCARD,
            "foo.bar.example.com/x",
            ["mirror.local/all/x", "foo.bar.example.com/x"],
            id="a wildcard stands for several labels",
        ),
        pytest.param(WILDCARD, "example.com/x", ["example.com/x"], id="a wildcard stands for one at least"),
        pytest.param(HUB, "alpine", ["quay.io/libpod/alpine"], id="library is written out"),
        pytest.param(HUB, "user/image", ["docker.io/other/image"], id="a namespace of the Hub"),
        pytest.param(
            '[[registry]]\nlocation = "a.b"\n[[registry]]\nprefix = "a.b/c"\nlocation = "d.e"',
            "a.b/c/f",
            ["d.e/f"],
            id="the longest prefix",
        ),
        pytest.param(
            '[[registry]]\nprefix = "a.b/c"\nlocation = "docker.io"', "a.b/c/f", ["docker.io/library/f"],
            id="a name of the Hub gets its library",
        ),
    ],
)  # fmt: skip
def test_a_name_is_asked_for_where_the_page_says(
    tmp_path: Path, text: str, name: str, expected: list[str]
) -> None:
    assert asked(candidates(policy(text, tmp_path), Repository.parse(name)), name) == expected


@pytest.mark.parametrize(
    ("registry", "mirror", "by_tag", "by_digest"),
    [
        ("", "", "mr", "mr"),
        ("", 'pull-from-mirror = "all"', "mr", "mr"),
        ("", 'pull-from-mirror = "digest-only"', "r", "mr"),
        ("", 'pull-from-mirror = "tag-only"', "mr", "r"),
        ("mirror-by-digest-only = true", "", "r", "mr"),
    ],
)
def test_a_mirror_is_for_tags_or_digests(
    tmp_path: Path, registry: str, mirror: str, by_tag: str, by_digest: str
) -> None:
    text = f'[[registry]]\nlocation = "a.b"\n{registry}\n[[registry.mirror]]\nlocation = "m.n"\n{mirror}\n'
    found, repository = policy(text, tmp_path), Repository.parse("a.b/c")

    def kinds(reference: str | Digest) -> str:
        return "".join(one.kind[0] for one in endpoints(found, ManifestOf(repository, reference)))

    assert kinds("1") == by_tag
    assert kinds(DIGEST) == by_digest
    assert "".join(one.kind[0] for one in endpoints(found, BlobOf(repository, DIGEST))) == by_digest


def test_insecure_is_said_of_each_place(tmp_path: Path) -> None:
    mirror_0, mirror_1, itself = candidates(policy(PAGE, tmp_path), Repository.parse("example.com/foo/image"))
    assert [one.hosts[0].insecure for one in (mirror_0, mirror_1, itself)] == [False, True, False]
    assert [str(host.origin) for host in mirror_1.hosts] == [
        "https://example-mirror-1.local",
        "http://example-mirror-1.local",
    ]


def test_what_is_blocked_is_asked_of_nobody(tmp_path: Path) -> None:
    found = policy('[[registry]]\nlocation = "a.b"\nblocked = true', tmp_path)
    with pytest.raises(Denied, match=r"a\.b/c: blocked by .*registries\.conf, line 1"):
        candidates(found, Repository.parse("a.b/c"))


def test_what_is_blocked_is_asked_of_its_mirrors_alone(tmp_path: Path) -> None:
    """What mirrorSourcePolicy = NeverContactSource of OpenShift becomes."""
    found = policy(
        '[[registry]]\nlocation = "a.b"\nblocked = true\n[[registry.mirror]]\nlocation = "m.n"', tmp_path
    )
    repository = Repository.parse("a.b/c")
    assert [one.name for one in candidates(found, repository)] == ["m.n"]
    with pytest.raises(Denied, match="blocked by"):
        endpoints(found, ManifestOf(repository, "1"), writes=True)


def test_a_push_goes_to_the_registry_that_was_named(tmp_path: Path) -> None:
    target = ManifestOf(Repository.parse("registry.com/image"), "1")
    assert [one.name for one in endpoints(policy(PAGE, tmp_path), target, writes=True)] == ["registry.com"]


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ('[registries.search]\nregistries = ["registry1.com", "registry2.com"]', 1, "version 1"),
        ("[[registry]]\ninsecure = true", 1, "neither location"),
        ('[[registry]]\nlocation = "a.b"\nsecure = true', 3, "unknown key"),
        ('[[registry]]\nlocation = "https://a.b"', 2, "no scheme"),
        ('[[registry]]\nprefix = "example.*.com"\nlocation = "a.b"', 2, "wildcard"),
        ('[[registry]]\nprefix = "*.example.com/foo"\nlocation = "a.b"', 2, "wildcard"),
        ('[[registry]]\nprefix = "*.example.com:5000/foo/bar:baz"\nlocation = "a.b"', 2, "wildcard"),
        ('[[registry]]\nprefix = "a.b/c:1"\nlocation = "a.b"', 2, "one image"),
        ('[[registry]]\nlocation = "a.b"\ninsecure = "yes"', 3, "true or false"),
        ('[[registry]]\nlocation = "a.b"\n\n[[registry.mirror]]\ninsecure = true', 4, "location"),
        ('[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\nlocation = "c d"', 4, "no place"),
        (
            '[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\nlocation = "c"\npull-from-mirror = "never"',
            5,
            "'never'",
        ),
        (
            '[[registry]]\nlocation = "a.b"\nmirror-by-digest-only = true\n[[registry.mirror]]\n'
            'location = "c.d"\npull-from-mirror = "all"',
            6,
            "one of the two",
        ),
        ('\ncredential-helpers = ["secretservice"]', 2, "not obeyed"),
        ('unqualified-search-registries = ["a b"]', 1, "no host"),
        ('[aliases]\n"image:1" = "a.b/c"', 2, "no short name"),
        ('[aliases]\n"localhost/image" = "a.b/c"', 2, "no short name"),
        ('[aliases]\n"image" = "c"', 2, "no full name"),
        ("a =", 1, "Invalid value"),
    ],
)
def test_what_cannot_be_honoured_is_an_error_with_its_line(
    tmp_path: Path, text: str, place: int, problem: str
) -> None:
    with pytest.raises(InvalidSettings, match=problem) as caught:
        policy(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/registries.conf, line {place}: ")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_files_are_read_in_the_order_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, home = tmp_path / "etc", tmp_path / "home"
    monkeypatch.setattr(places, "SYSTEM", system)
    environ = {"HOME": str(home)}
    user = home / ".config/containers"

    def table(location: str) -> str:
        return f'[[registry]]\nprefix = "a.b"\nlocation = "{location}"\n'

    def now() -> str | None:
        found = places.load(environ, None, _empty(tmp_path)).table_for("a.b/c")
        return found.location.host if found and found.location else None

    assert now() is None
    for path, location in (
        (system / "registries.conf", "first.io"),
        (system / "registries.conf.d/1.conf", "second.io"),
        (system / "registries.conf.d/2.conf", "third.io"),
        (user / "registries.conf.d/0.conf", "fourth.io"),
    ):
        _write(path, table(location))
        assert now() == location
    _write(system / "registries.conf.d/3.ignored", "no TOML")
    _write(user / "registries.conf", table("fifth.io"))
    assert now() == "fourth.io"
    (user / "registries.conf.d/0.conf").unlink()
    assert now() == "fifth.io"  # the system's drop-ins do not count any more
    _write(tmp_path / "named.conf", "")
    environ["CONTAINERS_REGISTRIES_CONF"] = str(tmp_path / "named.conf")
    assert now() == "third.io"  # it stands for the system's file, whose drop-ins stay
    environ["CONTAINERS_REGISTRIES_CONF"] = str(tmp_path / "gone.conf")
    with pytest.raises(InvalidSettings, match=r"gone\.conf: no such file"):
        now()


def test_aliases_and_search_of_a_stronger_file_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SYSTEM", tmp_path)
    _write(
        tmp_path / "registries.conf",
        'unqualified-search-registries = ["one.io"]\n[aliases]\na = "x.io/a"\nb = "x.io/b"',
    )
    _write(
        tmp_path / "registries.conf.d/1.conf",
        'unqualified-search-registries = ["two.io"]\n[aliases]\na = ""\n"c/d" = "docker.io/c"',
    )
    found = places.load({}, None, _empty(tmp_path)).short_names
    assert found.aliases == {"b": "x.io/b", "c/d": "docker.io/library/c"}
    assert found.search == ("two.io",)
    assert found.place == f"{tmp_path}/registries.conf.d/1.conf, line 1"


def test_a_file_that_others_can_change_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "registries.conf"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(InvalidSettings, match=r"registries\.conf"):
        places.load({}, path, _empty(tmp_path))
