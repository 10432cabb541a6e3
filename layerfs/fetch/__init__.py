"""Make it exist, once. Where an origin and the store meet; runs on trio.

**Order of work on a digest.** Many callers want the same thing: tasks of one daemon, and daemons and commands
on one store. Whoever wants it of a registry (1) joins the flight of this process, so that one task works and
all others wait (`layerfs.flights`); (2) takes the byte of (registry, digest) in the store's lock file, so
that one process works, and all others look every 100 ms whether the byte is free; (3) looks at the store
*again*, because the process that held the byte may have made it; (4) works; (5) publishes by rename; (6)
releases the byte. Nothing is published that was not verified, and nothing is trusted because somebody else
was working on it: only what the store has counts.

**Strangers.** Work, flights, staged files and bytes belong to (registry, digest). Two registries that name
one digest work beside each other, and who publishes first ends the work of the other (`tasks.make_once`): a
registry that is slow, silent or lying keeps nobody from having the same bytes elsewhere, and its errors are
told to those alone who asked it. Nor does it keep an extractor that it starves (`lending`).

**Who may wait.** Anybody, and whoever stops waiting stops nothing: the work runs in the nursery of the
`Fetcher`. Its end cancels the work; a download then stays staged, and the next attempt, in any process, goes
on behind what arrived. Failures are told to all who wait, and not remembered: the next caller starts anew.

**Who is blamed.** A layer is extracted while it arrives. When both fail it is the download's fault; when the
extraction fails alone, the bytes are hashed before the image is blamed, for a registry that sends other bytes
breaks the archive before the digest can tell (`verdicts`). A damaged blob in the store is nobody's fault: it
is fetched again. A claim of a config about a layer (its diff_id) concerns that image only, so it is part of
the flight's key. Bytes that came in several pieces, some of them perhaps from an earlier process, are fetched
once more in one piece before anybody is blamed.

This module imports nothing: the downloader process would have to, while somebody waits for it to start.
"""
