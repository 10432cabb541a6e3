"""``layerfs pull``: everything of an image into the store, with progress on a terminal."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import click

from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.resumption import resumed
from layerfs.cli.several import end
from layerfs.delegation.wire import Form, PullWords
from layerfs.errors import UsageError
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.cli.pulling import Pulled
    from layerfs.cli.resumption import Heard
    from layerfs.cli.several import Unmet


@app.verb(epilog="Example: layerfs pull docker.io/library/alpine:3.20 && layerfs images")
@options.configured(*options.FILLING, "daemon")
def pull(
    settings: Settings,
    references: Annotated[
        list[str],
        takes.argument(metavar="REFERENCE", help="Images to fetch.", shell_complete=complete_reference),
    ],
    quiet: Annotated[bool, takes.option("--quiet", "-q", help="Print the digests only.")] = False,
    all_platforms: Annotated[
        bool, takes.option("--all-platforms", help="Fetch all platforms, and what is listed beside.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Download, verify and extract all layers of images.

    The registry is asked anew what a tag names. With a digest the image is kept by its digest; a tag beside
    it names what it named before.

    Where one of several cannot be had, the others are fetched, and the exit code is that of the first error.
    With --json each has a result; that of an error has error and message, as in layerfs status. Progress is
    on standard error.

    What lazy overlays wait for whose daemon is gone comes first: see layerfs status --heal.

    A mount of the store does it, in a part of the time, if one has the same user, rights, settings and
    variables. With --no-daemon this process does, which can be limited, stopped and made to give way.

    Ctrl-C keeps what was downloaded; the next pull goes on behind it.
    """
    from layerfs.cli.early import extractors, is_unknown

    if quiet and as_json:
        raise UsageError("pull: --quiet and --json (expected one of the two)")
    form: Form = "json" if as_json else "digests" if quiet else "lines"
    with extractors(needed=not settings.offline and is_unknown(settings, references)) as pool:
        from layerfs.cli.running import with_provider  # brings trio and HTTP, while one starts

        words = PullWords(tuple(references), form, all_platforms, {})
        work = partial(_pull, settings=settings, words=words, heard=click.get_current_context().obj)
        results = with_provider(settings, work, pool=pool)
    end(results)


async def _pull(
    machinery: "Machinery", settings: Settings, words: PullWords, heard: "Heard | None"
) -> list["Pulled | Unmet"]:
    """Go on with what a daemon began, as far as it was *heard*, or begin."""
    from layerfs.cli.pulling import Pull, heal_first

    await heal_first(machinery)
    return await Pull(machinery, settings, words, *resumed(heard)).each()
