"""Which servers are asked for an image, in which order, and which file says so. For `config check`."""

import os

import click

from layerfs.config import settings_of
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.oci import ImageReference
from layerfs.registry.hosts import Host
from layerfs.registry.mirrors.endpoints import Endpoint, Policy, candidates
from layerfs.settings import Settings


def current_settings() -> Settings:
    """Return what the files say of everything. Raises InvalidSettings."""
    return settings_of(os.environ, os.getuid(), namespace=not in_initial_user_namespace())


def show(policy: Policy, reference: ImageReference) -> None:
    """Print a line for each server that is asked for an image. Raises Denied."""
    found = candidates(policy, reference.repository)
    click.echo(str(reference))
    for number, endpoint in enumerate(found, 1):
        urls = " or ".join(_url(host, reference) for host in endpoint.hosts)
        named = f", as ns={host.namespace}" if (host := endpoint.hosts[0]).namespace else ""
        login = ", with the registry's login" if host.forwards else ""
        click.echo(
            f"  {number}. {urls}: {endpoint.kind} for {_task(endpoint)}{named}{login} ({endpoint.why})"
        )


def as_json(policy: Policy, reference: ImageReference) -> dict[str, object]:
    """Return the same for scripts. Raises as `show`."""
    return {
        "reference": str(reference),
        "asked": [_json(one, reference) for one in candidates(policy, reference.repository)],
    }


def _json(endpoint: Endpoint, reference: ImageReference) -> dict[str, object]:
    host = endpoint.hosts[0]
    return {
        "name": endpoint.name,
        "kind": endpoint.kind,
        "urls": [_url(one, reference) for one in endpoint.hosts],
        "resolves": endpoint.resolves,
        "pulls": endpoint.pulls,
        "namespace": host.namespace or None,
        "headers": sorted(name for name, _ in host.headers),  # their values may be secrets
        "forwards_credentials": host.forwards,
        "verifies": not (host.insecure or host.link.skip_verify),
        "why": endpoint.why,
    }


def _url(host: Host, reference: ImageReference) -> str:
    return f"{host.origin}{host.root}/{host.path_of(reference.repository)}"


def _task(endpoint: Endpoint) -> str:
    if endpoint.resolves and endpoint.pulls:
        return "tags and content"
    return "tags" if endpoint.resolves else "content" if endpoint.pulls else "nothing"
