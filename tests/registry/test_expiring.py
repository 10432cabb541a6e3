"""Logins that end while they are used, as clouds hand them out for minutes or hours, by helpers."""

import json
import math
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from layerfs.errors import Denied
from layerfs.fetch.download import download
from layerfs.fetch.origin import InProcess
from layerfs.fetch.progress import Progress
from layerfs.fetch.streams import Streams
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.store import ImageStorage
from tests.support.faulty_registry import Answer, Asked, FaultyRegistry
from tests.support.registry_client import quick

CONTENT = os.urandom(1_500_000)
PIECE = 128 << 10
SEVERAL = Streams(most=3, least=PIECE, piece=PIECE, probe=PIECE // 2, enough=math.inf)
# As docker-credential-ecr-login, -gcloud and -acr-env answer, and what their registries want.
KINDS = {"ECR": ("AWS", "basic"), "GCR": ("oauth2accesstoken", "bearer"), "ACR": ("<token>", "bearer")}


class Cloud:
    """A registry whose logins are made by a helper, each for a while."""

    def __init__(self, registry: FaultyRegistry, directory: Path, user: str, secret: str) -> None:
        """Have a helper that logs *user* in; *secret* is the command that prints a secret."""
        self.registry = registry
        self._log = directory / "secrets"
        self.used: Counter[str] = Counter()
        self.refused: set[str] = set()
        helper = directory / "bin/docker-credential-cloud"
        helper.parent.mkdir()
        answer = json.dumps({"Username": user, "Secret": "%s"})
        helper.write_text(
            f"#!/bin/sh\nsecret=$({secret})\necho $secret >> {self._log}\nprintf '{answer}' $secret\n"
        )
        helper.chmod(0o755)
        authfile = directory / "auth.json"
        authfile.write_text(json.dumps({"credHelpers": {registry.host: "cloud"}}))
        environment = {"PATH": f"{helper.parent}:/usr/bin:/bin"}
        self.settings: RegistrySettings = quick(authfile=authfile, environment=environment)
        self._lock = threading.Lock()
        registry.faults.is_secret = self._judge
        registry.faults.anonymous = False

    @property
    def secrets(self) -> list[str]:
        """All that the helper has made."""
        return self._log.read_text().split() if self._log.exists() else []

    def _judge(self, secret: str) -> bool:
        with self._lock:
            self.used[secret] += 1
            return secret in self.secrets and secret not in self.refused

    def end_all(self) -> None:
        """Take all logins and tokens for ended."""
        self.refused.update(self.secrets)
        self.registry.tokens.clear()


@pytest.fixture(params=KINDS)
def cloud(request: pytest.FixtureRequest, faulty: FaultyRegistry, tmp_path: Path) -> Cloud:
    user, way = KINDS[request.param]
    faulty.faults.auth = way  # type: ignore[assignment]
    return Cloud(faulty, tmp_path, user, "cat /proc/sys/kernel/random/uuid")


async def part(client: RegistryClient, repository: Repository, blob: Descriptor, start: int) -> bytes:
    async with client.stream_blob(repository, blob, start, start + 1000) as stream:
        return b"".join([chunk async for chunk in stream])


async def test_each_request_after_an_end_has_a_new_login(cloud: Cloud) -> None:
    blob = Descriptor("application/octet-stream", cloud.registry.push_blob(CONTENT), len(CONTENT))
    repository = cloud.registry.repository("a/b")
    async with RegistryClient(cloud.settings) as client:
        for number in range(4):
            found = await part(client, repository, blob, number * 1000)
            assert found == CONTENT[number * 1000 :][:1000]
            cloud.end_all()
    assert len(cloud.secrets) == 4


async def test_many_at_once_ask_the_helper_once(cloud: Cloud) -> None:
    blob = Descriptor("application/octet-stream", cloud.registry.push_blob(CONTENT), len(CONTENT))
    repositories = [cloud.registry.repository(f"a/{number}") for number in range(3)]
    async with RegistryClient(cloud.settings) as client:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for repository in repositories * 2:
                    nursery.start_soon(part, client, repository, blob, 0)
            cloud.end_all()
    assert len(cloud.secrets) == 2


async def test_a_helper_that_goes_on_giving_what_has_ended_is_asked_once_more_and_no_more(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    faulty.faults.auth = "bearer"
    cloud = Cloud(faulty, tmp_path, "AWS", "echo always")
    blob = Descriptor("application/octet-stream", faulty.push_blob(CONTENT), len(CONTENT))
    async with RegistryClient(cloud.settings) as client:
        await part(client, faulty.repository("a/b"), blob, 0)
        cloud.end_all()
        asked = len(cloud.secrets)
        with pytest.raises(Denied):
            await part(client, faulty.repository("a/b"), blob, 0)
    assert len(cloud.secrets) - asked == 1


async def fetched(cloud: Cloud, content: bytes, store: Path, settings: RegistrySettings) -> None:
    """Have *content* by several requests."""
    digest = cloud.registry.push_blob(content)
    blob = Descriptor("application/octet-stream", digest, len(content))
    repository = cloud.registry.repository("a/b")
    progress = Progress(repository, digest, len(content))
    async with RegistryClient(settings) as client:
        with ImageStorage(store) as storage, storage.stage_layer_download(digest, len(content)) as staged:
            origin = InProcess(client, inline=True)
            await download(origin, staged, repository, blob, progress, streams=SEVERAL)
            staged.commit()


async def test_a_download_outlives_its_logins(
    cloud: Cloud, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token and each login is good for a few requests, and for all that come again for having ended."""
    whole = cloud.registry._located_blob
    requests = 0

    def is_awaited(asked: Asked) -> bool:
        """Say whether another request was refused and has not come again: a second refusal would be final."""
        ranges = {
            one.headers.get("range"): one.status for one in cloud.registry.asked if "/blobs/" in one.path
        }
        ranges.pop(asked.headers.get("range"), None)
        return 401 in ranges.values()

    def counted(asked: Asked, digest: str) -> Answer:
        nonlocal requests
        requests += 1
        if requests >= 3 and not is_awaited(asked):
            requests = 0
            cloud.end_all()
        return whole(asked, digest)

    monkeypatch.setattr(cloud.registry, "_located_blob", counted)
    await fetched(cloud, CONTENT, store, cloud.settings)
    assert len(cloud.secrets) >= 4


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_download_of_a_minute_outlives_tokens_of_five_seconds(
    kind: str, faulty: FaultyRegistry, tmp_path: Path, store: Path
) -> None:
    user, way = KINDS[kind]
    faulty.faults.auth = way  # type: ignore[assignment]
    cloud = Cloud(faulty, tmp_path, user, "date +%s")
    faulty.faults.is_secret = lambda secret: bool(secret) and time.time() - int(secret) < 5
    settings = quick(
        authfile=cloud.settings.authfile, environment=cloud.settings.environment, max_bandwidth=100_000
    )
    async with trio.open_nursery() as nursery:

        async def end_tokens() -> None:
            while True:
                await trio.sleep(5)
                faulty.tokens.clear()

        nursery.start_soon(end_tokens)
        began = trio.current_time()
        await fetched(cloud, os.urandom(6_000_000), store, settings)
        assert trio.current_time() - began > 50
        nursery.cancel_scope.cancel()
    assert len(cloud.secrets) >= 8
