"""Everything about the package stands in pyproject.toml; this file adds the one thing that cannot be said there."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithResults(build_py):
    """Copy results/*.json into the wheel, so that chapters that show measured numbers also run on Colab."""

    def run(self):
        super().run()
        if not self.editable_mode:  # an editable install reads results/ where it lies
            target = Path(self.build_lib, "rwkvlib", "results")
            for source in Path("results").rglob("*.json"):
                copy = target / source.relative_to("results")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


setup(cmdclass={"build_py": BuildWithResults})
