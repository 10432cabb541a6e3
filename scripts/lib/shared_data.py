"""A hook of hatchling: the wheel has manual pages and completions, as the program itself prints them."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SharedData(BuildHookInterface[Any]):
    """Writes them to a directory that lasts as long as the build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell hatchling of them; an editable installation has none."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from layerfs.cli.manual import shared_data

        self._made = Path(tempfile.mkdtemp(prefix="layerfs-build-"))
        for number, (place, text) in enumerate(shared_data().items()):
            path = self._made / str(number)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the directory."""
        if version != "editable":
            shutil.rmtree(self._made)
