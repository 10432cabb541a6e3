"""Registries that may not be asked are not: decided by name, before anything is sent, whatever it is."""

from collections.abc import Awaitable, Callable

import pytest

from layerfs.errors import Denied, LayerfsError, Offline
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry.client import RegistryClient
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry_client import quick

CONTENT = b"{}"
BLOB = Descriptor("", Digest.of(CONTENT), len(CONTENT))

Question = Callable[[RegistryClient, Repository], Awaitable[object]]


async def _stream(client: RegistryClient, repository: Repository) -> None:
    async with client.stream_blob(repository, BLOB) as stream:
        assert b"".join([chunk async for chunk in stream]) == CONTENT


QUESTIONS: dict[str, Question] = {
    "a tag": lambda client, repository: client.resolve(repository.with_tag("1")),
    "a manifest": lambda client, repository: client.fetch_manifest(repository, BLOB.digest),
    "a config": lambda client, repository: client.fetch_config(repository, BLOB),
    "a blob": _stream,
    "tags": lambda client, repository: client.tags(repository),
    "a login": lambda client, repository: client.check_login(repository.registry),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    ("changes", "error", "advice"),
    [
        pytest.param(
            {"allowed": frozenset()},
            Denied,
            r"contact none\); mount with --registries",
            id="none",
        ),
        pytest.param(
            {"allowed": frozenset({"other.example"})}, Denied, r"\(only other.example\)", id="another"
        ),
        pytest.param({"offline": True}, Offline, "--offline", id="offline"),
    ],
)
async def test_nothing_is_sent_to_a_registry_that_may_not_be_asked(
    faulty: FaultyRegistry,
    name: str,
    changes: dict[str, object],
    error: type[LayerfsError],
    advice: str,
) -> None:
    repository = faulty.repository("a/b")
    faulty.push_blob(CONTENT)
    async with RegistryClient(quick(**changes)) as client:
        with pytest.raises(error, match=advice):
            await QUESTIONS[name](client, repository)
    assert faulty.asked == []


async def test_a_registry_that_is_allowed_is_asked(faulty: FaultyRegistry) -> None:
    repository = faulty.repository("a/b")
    faulty.push_blob(CONTENT)
    async with RegistryClient(quick(allowed=frozenset({repository.registry}))) as client:
        await _stream(client, repository)
        assert await client.fetch_config(repository, BLOB) == CONTENT
