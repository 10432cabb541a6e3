"""No password, token or presigned URL appears in any log or error, whatever fails."""

import base64
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import InvalidSettings, LayerfsError
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.credentials import Credential
from layerfs.registry.mirrors import places
from layerfs.registry.redirects import Request
from layerfs.registry.token import Token
from tests.support.faulty_registry import (
    IDENTITY_TOKEN,
    PASSWORD,
    SIGNATURE,
    TOKEN_PREFIX,
    USER,
    Answer,
    Faults,
    FaultyRegistry,
    basic,
)
from tests.support.images import file, image, layer
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first" * 10_000), compression="none"))
BLOB = BUILT.layers[0].descriptor()
SECRETS = (
    PASSWORD,
    "planted",
    basic(USER, PASSWORD).removeprefix("Basic "),
    IDENTITY_TOKEN,
    SIGNATURE,
    TOKEN_PREFIX,
    "s3cret",
)


def _set(**values: object) -> Callable[[Faults], None]:
    def switch(faults: Faults) -> None:
        for name, value in values.items():
            setattr(faults, name, value)

    return switch


def _to(location: str) -> Callable[[Faults], None]:
    return _set(redirect=lambda _: (307, location))


FAULTS: dict[str, Callable[[Faults], None]] = {
    "none": _set(),
    "wrong password": _set(anonymous=False, token_answer=Answer(401)),
    "token server broken": _set(token_answer=Answer(500, b"planted")),
    "token server talks nonsense": _set(token_answer=Answer(200, b'{"token": "planted\\n"')),
    "token in the answer unreadable": _set(token_answer=Answer(200, b'{"token": "planted two"}')),
    "token server echoes": _set(token_answer=Answer(403, b'{"details": "I got: x?token=s3cret"}')),
    "tokens refused": _set(needed_scope="other", token_life=1),
    "realm with a password": _set(realm="http://user:s3cret@127.0.0.1:1/token"),
    "realm that is no URL": _set(realm="ftp://user:s3cret@h/?sig=planted"),
    "echo in a 400": _set(echo=400),
    "echo in a 403": _set(echo=403),
    "echo in a 404": _set(echo=404),
    "echo in a 429": _set(echo=429),
    "echo in a 500": _set(echo=500),
    "echo in a success": _set(echo=204),
    "redirect to a dead host": _to(f"http://127.0.0.1:1/x?X-Amz-Signature={SIGNATURE}&{SIGNATURE}"),
    "redirect with a password": _to("http://user:s3cret@127.0.0.1:1/x"),
    "redirect to another scheme": _to(f"ftp://user:s3cret@h/x?sig={SIGNATURE}#{SIGNATURE}"),
    "redirect to a broken URL": _to(f"http://[::{SIGNATURE}/?{SIGNATURE}"),
    "redirect in a circle": _to(f"/v2/a/b/blobs/x?sig={SIGNATURE}"),
    "storage without the blob": _set(redirect_to_storage=True, wrong_digest="x"),
    "storage breaks off": _set(redirect_to_storage=True, cut_blobs=[3] * 20),
    "storage ends early": _set(redirect_to_storage=True, short_blobs=[3] * 20),
    "storage stalls": _set(redirect_to_storage=True, stall_blobs=[3] * 20),
    "storage lies about ranges": _set(redirect_to_storage=True, content_range="bytes 0-1/2"),
    "wrong bytes": _set(wrong_bytes=True),
}


async def provoke(settings: RegistrySettings, faulty: FaultyRegistry) -> list[str]:
    """Use everything; return all errors with their causes."""
    repository = faulty.push("a/b", "1", BUILT)
    errors = list[str]()
    async with RegistryClient(settings) as client:
        for use in (
            lambda: client.resolve(repository.with_tag("1")),
            lambda: client.fetch_manifest(repository, BUILT.digest),
            lambda: download(client, repository, BLOB),
            lambda: download(client, repository, BLOB, offset=5),
            lambda: client.tags(repository),
        ):
            try:
                await use()
            except LayerfsError as exc:
                errors += traceback.format_exception(exc)
    return errors


@pytest.mark.allow_warnings
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", ["password", "identity token"])
async def test_no_failure_shows_a_secret(
    faulty: FaultyRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, way: str
) -> None:
    for name in ("", "layerfs", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name or None)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    entry = {"auth": auth} if way == "password" else {"identitytoken": IDENTITY_TOKEN}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {faulty.host: entry}}))
    faulty.faults.auth = "bearer"
    FAULTS[fault](faulty.faults)
    patience = 0.2 if fault == "storage stalls" else 60
    errors = await provoke(quick(authfile=tmp_path / "auth.json", idle_timeout=patience), faulty)
    shown = "\n".join([*errors, caplog.text])
    assert [secret for secret in SECRETS if secret in shown] == []
    assert f"HEAD http://{faulty.host}/v2/a/b/manifests/1: 401" in caplog.text  # the log is not just empty


@pytest.mark.parametrize(
    "content",
    [
        '{"auths": {"h": {"auth": "!planted!"}}}',
        '{"auths": {"h": "planted"}}',
        '{"auths": {"h": {"auth": ["planted"]}}} planted',
        "planted",
    ],
)
@pytest.mark.allow_warnings
async def test_a_broken_credential_file_is_not_shown(
    faulty: FaultyRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "auth.json").write_text(content.replace('"h"', f'"{faulty.host}"'))
    faulty.faults.auth = "bearer"
    faulty.faults.anonymous = False
    errors = await provoke(quick(authfile=tmp_path / "auth.json"), faulty)
    assert errors
    assert "auth.json" in caplog.text
    assert "planted" not in caplog.text + "".join(errors)


HOSTS_TOML = """
[host."http://{mirror}"]
header = {{Authorization = "Basic cGxhbnRlZDpwbGFudGVk", X-Own = "planted", Cookie = "a=planted"}}
[host."http://127.0.0.1:1/v2/elsewhere"]
override_path = true
proxy = "http://user:planted@127.0.0.1:1"
"""


@pytest.mark.allow_warnings
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_failure_of_a_mirror_shows_a_secret(
    faulty: FaultyRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Neither its headers, nor its proxy's password, nor the login that it may be sent."""
    for name in ("", "layerfs", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name or None)
    auth = basic(USER, PASSWORD).removeprefix("Basic ")
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {faulty.host: {"auth": auth}}}))
    with FaultyRegistry() as mirror:
        (tmp_path / faulty.host).mkdir()
        (tmp_path / faulty.host / "hosts.toml").write_text(HOSTS_TOML.format(mirror=mirror.host))
        mirror.push("a/b", "1", BUILT)
        mirror.faults.auth = faulty.faults.auth = "bearer"
        mirror.tokens = faulty.tokens
        mirror.faults.realm = f"http://{faulty.host}/token"
        FAULTS[fault](mirror.faults)
        faulty.faults.always = [("/v2/", Answer(500))]
        settings = quick(
            authfile=tmp_path / "auth.json",
            idle_timeout=0.2 if fault == "storage stalls" else 60,
            mirrors=places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path),
            forward_credentials=frozenset({mirror.host}),
        )
        errors = await provoke(settings, faulty)
    shown = "\n".join([*errors, caplog.text, repr(settings)])
    assert [secret for secret in (*SECRETS, "cGxhbnRlZDpwbGFudGVk", auth) if secret in shown] == []
    assert f"HEAD http://{mirror.host}/v2/a/b/manifests/1" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        'server = "https://user:planted@h"',
        'server = "https://h/?sig=planted"',
        '[host."https://user:planted@h"]\nskip_verify = 1',
        '[host."https://h/?sig=planted"]\nskip_verify = 1',
        'proxy = "http://user:planted@h/path"',
        'proxy = "user:planted@h"',
        'header = {Authorization = "Basic planted\\n"}',
        'header = {Authorization = 5, X = "planted"}',
        'header = "planted"',
        'header = {Authorization = "Basic planted}',
    ],
)
def test_a_broken_hosts_toml_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.io").mkdir()
    (tmp_path / "a.io/hosts.toml").write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path)
    assert "hosts.toml, line " in str(caught.value)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("text", ["https://user:planted@h/a", "user:planted@h/a", "h/a?sig=planted"])
@pytest.mark.parametrize("key", ["location", "mirror = [{location", "prefix"])
def test_a_broken_registries_conf_shows_no_password(tmp_path: Path, key: str, text: str) -> None:
    end = "}]" if "{" in key else ""
    more = "" if key == "location" else 'location = "h"\n'
    (tmp_path / "registries.conf").write_text(f'[[registry]]\n{more}{key} = "{text}"{end}\n')
    with pytest.raises(InvalidSettings) as caught:
        places.load({}, tmp_path / "registries.conf", tmp_path)
    assert "registries.conf, line " in str(caught.value)
    assert "planted" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    credential = Credential("file", USER, "planted", "planted", "planted")
    request = Request("GET", "http://u:planted@h/?x=planted", authorization="planted", form=b"planted")
    shown = f"{credential!r} {credential} {request!r} {Token('planted', 1)!r}"
    shown += repr(RegistrySettings(environment={"X": "planted"}))
    assert "planted" not in shown
