"""Manifests and indexes: parsed from the verified bytes, chosen from by platform.

Sources: image-spec manifest.md and image-index.md; Docker's schema 2. Schema 1 is refused.
"""

from typing import Final

import msgspec

from layerfs.errors import InvalidDocument, PlatformMissing, UnsupportedImage
from layerfs.oci import mediatype
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.documents import DescriptorJson, ManifestJson, decode, descriptor, platform, word
from layerfs.oci.platform import Platform

MAX_LAYERS: Final = 1000
"""Twice what overlayfs stacks; a manifest with more serves no one but an attacker."""

MAX_MANIFESTS: Final = 1000
"""Entries of an index from a registry; the largest public ones have some dozens."""

_ATTESTATION: Final = "vnd.docker.reference.type"
_FLAVOURS: Final = ("containerd.io/snapshot/", "io.goharbor.artifact.v1alpha1.acceleration.")


class Manifest(msgspec.Struct, frozen=True):
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
        """Whether it has a root filesystem; anything else is an artifact.

        Signatures and attestations have the config of an image, and no layer that is an archive.
        """
        config = self.config.media_type
        typed = config in mediatype.CONFIGS
        if not typed and (config not in mediatype.UNTYPED or self.artifact_type):
            return False
        return not self.layers or any(mediatype.is_archive(layer.media_type) for layer in self.layers)

    @property
    def kind(self) -> str:
        """The media type that says best what an artifact is."""
        if self.artifact_type or not self.layers or self.config.media_type not in mediatype.CONFIGS:
            return self.artifact_type or self.config.media_type or "no config type"
        return self.layers[0].media_type

    def require_image(self) -> None:
        """Raise UnsupportedImage for an artifact."""
        if not self.is_image:
            raise UnsupportedImage(
                f"{self.digest}: an artifact ({self.kind}), not an image: it has no root filesystem"
            )


class Index(msgspec.Struct, frozen=True):
    """An image index: manifests for several platforms, in the order of the document."""

    digest: Digest
    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    unreadable: tuple[str, ...] = ()
    """Entries whose digest is of an unknown algorithm: platform and digest, for people."""

    def platforms(self) -> dict[Platform, Descriptor]:
        """Return the first manifest for each platform that is an image for everybody, if there is one."""
        found: dict[Platform, Descriptor] = {}
        for entry in sorted(self.manifests, key=_is_flavoured):
            if entry.platform is not None and not _is_no_image(entry):
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
            if entry.platform is None and not _is_no_image(entry):
                return entry
        have = ", ".join((*map(str, by_platform), *self.unreadable)) or "none"
        raise PlatformMissing(
            f"index {self.digest.shown}: no image for {wanted} (the index has: {have}); "
            "choose one of them with --platform"
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
    if json.manifests is not None or type_ in mediatype.INDEXES:
        if type_ in mediatype.MANIFESTS:
            raise InvalidDocument(f"{what}: an index that calls itself {type_!r}")
        if len(json.manifests or ()) > MAX_MANIFESTS:
            raise InvalidDocument(
                f"{what}: {len(json.manifests or ())} manifests (expected at most {MAX_MANIFESTS})"
            )
        return _index(json, raw, digest, type_ or mediatype.OCI_INDEX, what)
    if type_ and type_ not in mediatype.MANIFESTS:
        raise UnsupportedImage(f"{what}: unknown media type {type_!r}")
    return _manifest(json, raw, digest, type_ or mediatype.OCI_MANIFEST, what)


def parse_index(raw: bytes, what: str) -> Index:
    """Read the ``index.json`` of a layout (image-spec, image-layout.md), whatever index it calls itself.

    Raises InvalidDocument or UnsupportedImage, naming *what*.
    """
    json = decode(raw, ManifestJson, what)
    if json.media_type in mediatype.MANIFESTS:
        raise InvalidDocument(f"{what}: calls itself {json.media_type!r} (expected an index)")
    return _index(json, raw, Digest.of(raw), json.media_type or mediatype.OCI_INDEX, what)


def _index(json: ManifestJson, raw: bytes, digest: Digest, media_type: str, what: str) -> Index:
    if json.config is not None or json.layers is not None:
        # Two readers could see two images in one document (CVE-2021-41190).
        raise InvalidDocument(f"{what}: an index that has 'config' or 'layers' (expected one kind)")
    entries = [(f"{what}: manifests[{number}]", entry) for number, entry in enumerate(json.manifests or ())]
    known = [entry for entry in entries if Digest.is_known(entry[1].digest)]
    unknown = [entry for _, entry in entries if not Digest.is_known(entry.digest)]
    return Index(
        digest,
        raw,
        word(media_type),
        tuple(descriptor(entry, where) for where, entry in known),
        tuple(f"{platform(entry.platform) or 'no platform'} as {entry.digest[:100]!r}" for entry in unknown),
    )


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
        artifact_type=word(json.artifact_type) or None,
        subject=descriptor(json.subject, f"{what}: subject") if json.subject else None,
    )


def _descriptors(entries: list[DescriptorJson], where: str) -> tuple[Descriptor, ...]:
    return tuple(descriptor(entry, f"{where}[{number}]") for number, entry in enumerate(entries))


def _is_no_image(entry: Descriptor) -> bool:
    """Say whether an entry is there for another one: an attestation, or an index of its files."""
    unknown = entry.platform is not None and entry.platform.os == "unknown"
    return (
        unknown or bool(entry.artifact_type) or entry.annotations.get(_ATTESTATION) == "attestation-manifest"
    )


def _is_flavoured(entry: Descriptor) -> bool:
    """Say whether an entry is a form of the image for special readers; the plain one is beside it.

    nydus marks its own with ``os.features``, acceleration services with an annotation.
    """
    return bool(entry.os_features) or any(key.startswith(_FLAVOURS) for key in entry.annotations)


def _refuse_schema1(digest: Digest) -> None:
    raise UnsupportedImage(
        f"manifest {digest}: Docker schema 1 is not supported; push the image again with a current tool"
    )
