"""The command line of scripts/bench."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from benchlib import machine
from benchlib.inputs import COMPRESSIONS, NAMES, Compression
from benchlib.results import Measurement, as_json, table

_DEFAULT_INPUTS = "a,b,c,d,a:zstd,b:zstd"
_WILD = "e,f,g,h,g:zstd,g:zstd-19"
"""What `--inputs wild` means: layers in the shapes that builders write."""


def main() -> int:
    """Measure, print each table when it is complete, and write the JSON file at the end."""
    arguments = _parser().parse_args()
    if arguments.cpus:
        os.sched_setaffinity(0, _cpus(arguments.cpus))
    about = machine.about(arguments.command, arguments.rounds)
    _print_head(about)
    found = []
    for measurement in _measurements(arguments):
        found.append(measurement)
        _progress("")
        print(table(measurement), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(found, about), indent=2) + "\n", encoding="utf-8")
    return 0


def _measurements(arguments: argparse.Namespace) -> Iterator[Measurement]:
    # Each imports what it measures: the one must run where the other's part is broken.
    if arguments.command == "extract":
        from benchlib import extracting

        inputs = _WILD if arguments.inputs == "wild" else arguments.inputs
        chosen = [_input(text) for text in inputs.split(",")]
        return extracting.measurements(chosen, arguments.filesystems.split(","), arguments.rounds, _progress)
    if arguments.command == "store":
        from benchlib import storing

        return storing.measurements(arguments.rounds, _progress)
    if arguments.command == "start":
        if arguments.rates:
            from benchlib import launching

            rates = [float(text) for text in arguments.rates.split(",")]
            plan = launching.Plan(rates, arguments.megabytes, arguments.svg)
            return launching.measurements(plan, arguments.rounds, _progress)
        from benchlib import starting

        return starting.measurements(arguments.rounds, _progress)
    if arguments.command == "lazy":
        from benchlib import lazily

        rates = [float(text) for text in arguments.rates.split(",") if text]
        return lazily.measurements(rates, arguments.megabytes, arguments.rounds, _progress)
    if arguments.command == "fleet":
        from benchlib import fleet

        size = fleet.Size(arguments.nodes, arguments.megabytes, arguments.rate)
        return fleet.measurements(size, arguments.rounds, _progress)
    if arguments.command == "overlap":
        from benchlib import overlapping

        return overlapping.measurements(arguments.rounds, _progress)
    if arguments.command == "beside":
        from benchlib import beside

        parts = arguments.parts.split(",") if arguments.parts else beside.PARTS
        if not set(parts) <= set(beside.PARTS):
            raise SystemExit(
                f"scripts/bench: --parts {arguments.parts} (expected some of {','.join(beside.PARTS)})"
            )
        return beside.measurements(parts, arguments.rounds, _progress)
    if arguments.command == "versus":
        from benchlib import versus

        if "--rounds" in arguments.bench:
            raise SystemExit(
                "scripts/bench: --rounds comes before the revision (versus --rounds N REVISION ...)"
            )
        return iter(versus.measurements(arguments.revision, arguments.bench, arguments.rounds, _progress))
    from benchlib import mounting

    return mounting.measurements(arguments.rounds, _progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure layerfs beside the tools that do similar work."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    extract = commands.add_parser("extract", help="extract layers: GNU tar, bsdtar, umoci, podman")
    extract.add_argument(
        "--inputs",
        default=_DEFAULT_INPUTS,
        help=f"name[:compression],... of {'/'.join(NAMES)} and {'/'.join(COMPRESSIONS)}; "
        f"wild: {_WILD} (%(default)s)",
    )
    extract.add_argument("--filesystems", default="tmpfs,disk", help="tmpfs, disk (%(default)s)")
    mount = commands.add_parser("mount", help="serve a layer: fuse-overlayfs, ratarmount")
    store = commands.add_parser("store", help="open a store with much in it")
    start = commands.add_parser("start", help="the fixed prices of what is small: podman, skopeo")
    start.add_argument(
        "--rates",
        metavar="LIST",
        help="instead: the first process of a container, behind lines of so many MB/s, 0 for no limit",
    )
    start.add_argument("--megabytes", type=_positive, default=250, metavar="N", help="size (%(default)s)")
    start.add_argument("--svg", type=Path, metavar="FILE", help="write a graph of requests over time there")
    lazy = commands.add_parser("lazy", help="layers with a TOC, before they are here and whole")
    lazy.add_argument(
        "--rates", default="3,25,100", metavar="LIST", help="MB/s of the line, empty for none (%(default)s)"
    )
    lazy.add_argument("--megabytes", type=_positive, default=250, metavar="N", help="size (%(default)s)")
    fleet = commands.add_parser(
        "fleet", help="an image on many nodes: alone, by a proxy, by peers that serve"
    )
    fleet.add_argument("--nodes", type=_positive, default=20, metavar="N", help="(%(default)s)")
    fleet.add_argument("--megabytes", type=_positive, default=300, metavar="N", help="size (%(default)s)")
    fleet.add_argument("--rate", type=float, default=100, metavar="N", help="MB/s of the line (%(default)s)")
    overlap = commands.add_parser("overlap", help="fetch and extract at once, against each alone")
    beside = commands.add_parser("beside", help="how quickly lookups are answered beside other work")
    beside.add_argument("--parts", metavar="LIST", help="some of work,waiters,thread,timer (all)")
    versus = commands.add_parser("versus", help="this checkout and an older one in turn, without the peers")
    for command in (extract, mount, store, start, lazy, fleet, overlap, beside, versus):
        command.add_argument("--rounds", type=_positive, default=5, metavar="N", help="(%(default)s)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
        command.add_argument("--cpus", metavar="LIST", help="run everything on these cores only, as 0 or 0,1")
    versus.add_argument("revision", help="any name that git knows")
    versus.add_argument(
        "bench", nargs=argparse.REMAINDER, help="one of the others, with its options but --rounds"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} (expected a number of at least 1)")
    return int(text)


def _cpus(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def _input(text: str) -> tuple[str, Compression]:
    name, _, compression = text.partition(":")
    if name not in NAMES or compression not in ("", *COMPRESSIONS):
        raise SystemExit(
            f"scripts/bench: no input {text!r} (expected {'/'.join(NAMES)}, with "
            f"{' or '.join(f':{found}' for found in COMPRESSIONS)}, or without)"
        )
    return name, cast("Compression", compression or "gzip")


def _print_head(about: dict[str, object]) -> None:
    for key in ("machine", "versions"):
        facts = cast("dict[str, object]", about[key])
        print(f"{key}: " + "; ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{about['rounds']} rounds, interleaved; medians. layerfs/it is layerfs over the contender.")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text[:110]}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
