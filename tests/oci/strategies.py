"""Hypothesis strategies for the values of `layerfs.oci`."""

from hypothesis import strategies as st

from layerfs.oci import Digest, ImageReference, Platform, Repository
from layerfs.oci.reference import is_registry

_ALNUM = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORD = st.text(_ALNUM, min_size=1, max_size=6)

digests = st.binary(max_size=8).flatmap(
    lambda content: st.sampled_from(["sha256", "sha512"]).map(lambda name: Digest.of(content, name))
)
components = st.lists(_WORD, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([".", "_", "__", "-", "---"]).map(lambda joint: joint.join(words))
)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
_hosts = st.one_of(
    st.just("localhost"),
    st.lists(_WORD, min_size=2, max_size=3).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    _WORD.map(lambda word: word.upper() + "A"),
)
registries = st.one_of(
    _hosts, st.tuples(_hosts, st.integers(0, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}")
).filter(lambda text: is_registry(text) and text not in ("index.docker.io", "registry-1.docker.io"))
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
repositories = st.builds(Repository.of, st.one_of(registries, st.just("docker.io")), paths).map(
    lambda repository: Repository.parse(str(repository))
)
references = st.one_of(
    st.builds(Repository.with_digest, repositories, digests),
    st.builds(
        lambda tag, digest: ImageReference(tag.repository, tag, digest),
        st.builds(Repository.with_tag, repositories, tags),
        st.none() | digests,
    ),
)
platforms = st.builds(
    Platform.of,
    st.sampled_from(["linux", "windows", "Darwin", "macos"]),
    st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "386", "riscv64", "s390x"]),
    st.sampled_from(["", "v1", "v2", "v3", "v5", "v7", "8", "v8", "v8.2", "v9", "v9.1"]),
)
