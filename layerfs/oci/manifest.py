"""Manifests and indexes: parsed from the verified bytes, chosen from by platform.

Sources: image-spec manifest.md and image-index.md; Docker's schema 2. Schema 1 is refused.
"""

from dataclasses import dataclass
from typing import Final

from layerfs.errors import InvalidDocument, PlatformMissing, UnsupportedImage
from layerfs.oci import mediatype
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.documents import DescriptorJson, ManifestJson, decode, descriptor
from layerfs.oci.platform import Platform

MAX_LAYERS: Final = 1000
"""Twice what overlayfs stacks; a manifest with more serves no one but an attacker."""

_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: one config and its layers, base first."""

    digest: Digest
    raw: bytes
    """The verified bytes, exactly as served."""
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None

    @property
    def is_image(self) -> bool:
        """Whether its config is an image configuration; anything else is an artifact."""
        return self.config.media_type in mediatype.CONFIGS

    def require_image(self) -> None:
        """Raise UnsupportedImage for an artifact."""
        if not self.is_image:
            kind = self.artifact_type or self.config.media_type or "no config type"
            raise UnsupportedImage(
                f"{self.digest}: an artifact ({kind}), not an image: it has no root filesystem"
            )


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: manifests for several platforms, in the order of the document."""

    digest: Digest
    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]

    def platforms(self) -> dict[Platform, Descriptor]:
        """Return the first manifest for each platform; attestations are left out."""
        found: dict[Platform, Descriptor] = {}
        for entry in self.manifests:
            if entry.platform is not None and not _is_attestation(entry):
                found.setdefault(entry.platform, entry)
        return found

    def choose(self, wanted: Platform) -> Descriptor:
        """Pick the manifest that *wanted* runs best. Raises PlatformMissing, listing what there is.

        Entries without a platform come last, as containerd sorts them.
        """
        by_platform = self.platforms()
        for candidate in wanted.candidates():
            if candidate in by_platform:
                return by_platform[candidate]
        for entry in self.manifests:
            if entry.platform is None and not _is_attestation(entry):
                return entry
        have = ", ".join(map(str, by_platform)) or "none"
        raise PlatformMissing(
            f"{self.digest}: no manifest for {wanted} (the index has: {have}); try --platform"
        )


def parse_manifest(raw: bytes, digest: Digest, media_type: str = "") -> Manifest | Index:
    """Read verified bytes as a manifest or an index.

    *media_type* is what the registry or the descriptor said, empty if nothing: the document's own
    ``mediaType`` must agree with it (image-spec, manifest.md). Raises InvalidDocument or UnsupportedImage.
    """
    what = f"manifest {digest}"
    if media_type in mediatype.SCHEMA1:
        _refuse_schema1(digest)
    json = decode(raw, ManifestJson, what)
    if json.schema_version == 1:
        _refuse_schema1(digest)
    if json.schema_version != 2:
        raise InvalidDocument(f"{what}: schemaVersion {json.schema_version} (expected 2)")
    if json.media_type in mediatype.SCHEMA1:
        _refuse_schema1(digest)
    known = mediatype.INDEXES | mediatype.MANIFESTS
    if json.media_type and media_type in known and json.media_type != media_type:
        raise InvalidDocument(
            f"{what}: mediaType {json.media_type!r} (expected {media_type!r}, as announced)"
        )
    # Registries that do not know better announce application/json or text/plain: that says nothing.
    type_ = json.media_type or (media_type if media_type.startswith("application/vnd.") else "")
    if json.manifests is not None and (json.config is not None or json.layers is not None):
        # Two readers could see two images in one document (CVE-2021-41190).
        raise InvalidDocument(f"{what}: has both 'manifests' and 'config' or 'layers' (expected one kind)")
    if json.manifests is not None:
        if type_ in mediatype.MANIFESTS:
            raise InvalidDocument(f"{what}: an index that calls itself {type_!r}")
        return Index(
            digest, raw, type_ or mediatype.OCI_INDEX, _descriptors(json.manifests, f"{what}: manifests")
        )
    if type_ in mediatype.INDEXES:
        raise InvalidDocument(f"{what}: calls itself {type_!r} but has no 'manifests'")
    if type_ and type_ not in mediatype.MANIFESTS:
        raise UnsupportedImage(f"{what}: unknown media type {type_!r}")
    return _manifest(json, raw, digest, type_ or mediatype.OCI_MANIFEST, what)


def _manifest(json: ManifestJson, raw: bytes, digest: Digest, media_type: str, what: str) -> Manifest:
    if json.config is None:
        raise InvalidDocument(f"{what}: config: missing")
    layers = json.layers or []
    if len(layers) > MAX_LAYERS:
        raise InvalidDocument(f"{what}: {len(layers)} layers (expected at most {MAX_LAYERS})")
    return Manifest(
        digest=digest,
        raw=raw,
        media_type=media_type,
        config=descriptor(json.config, f"{what}: config"),
        layers=_descriptors(layers, f"{what}: layers"),
        artifact_type=json.artifact_type,
        subject=descriptor(json.subject, f"{what}: subject") if json.subject else None,
    )


def _descriptors(entries: list[DescriptorJson], where: str) -> tuple[Descriptor, ...]:
    return tuple(descriptor(entry, f"{where}[{number}]") for number, entry in enumerate(entries))


def _is_attestation(entry: Descriptor) -> bool:
    unknown = entry.platform is not None and entry.platform.os == "unknown"
    return unknown or entry.annotations.get(_ATTESTATION) == "attestation-manifest"


def _refuse_schema1(digest: Digest) -> None:
    raise UnsupportedImage(
        f"manifest {digest}: Docker schema 1 is not supported; push the image again with a current tool"
    )
