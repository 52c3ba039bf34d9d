"""What pyproject.toml cannot say: a wheel takes the shipped models from `data/` along.

In a clone, and so in an editable install, they lie in `data/` and nowhere else.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Copies `data/` into the built package, where `crate_analysis.paths` finds it."""

    def run(self) -> None:
        """Build, and copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "crate_analysis", "_data")
            shutil.rmtree(target, ignore_errors=True)  # an earlier build's may hold more
            shutil.copytree("data", target, ignore=shutil.ignore_patterns(".*", "*.part", "*.tmp"))


setup(cmdclass={"build_py": BuildWithData})
