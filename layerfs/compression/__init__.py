"""Bytes to bytes: what a blob is compressed with, and its uncompressed bytes.

`formats` holds the table: a row and a module for each format. Every format is read to the blob's end: several
members or frames are one stream, and a stream that stops early is refused. Knows no archive format.
"""

from layerfs.compression.base import CHUNK, Prefixed, RawStream, Stream
from layerfs.compression.formats import FORMATS, Format, sniff

__all__ = ["CHUNK", "FORMATS", "Format", "Prefixed", "RawStream", "Stream", "sniff"]
