"""Everything about the package stands in pyproject.toml; this file adds what cannot be said there."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithResults(build_py):
    """Copy results, reference numbers and recipes into the wheel, so that chapters run without a checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:  # an editable install reads them where they lie
            for folder, name in (("results", "results"), ("tests/reference", "reference"), ("configs", "configs")):
                for source in Path(folder).rglob("*.*"):
                    if source.suffix in (".json", ".csv", ".npz", ".yaml"):
                        copy = Path(self.build_lib, "rwkvlib", name, source.relative_to(folder))
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(source, copy)


setup(
    # A folder of its own in the checkout, but no top-level package of that name on a user's machine.
    packages=[*find_packages(include=["rwkvlib*"], exclude=["rwkvlib.data_scripts"]), "rwkvlib.data_scripts"],
    package_dir={"rwkvlib.data_scripts": "data_scripts"},
    cmdclass={"build_py": BuildWithResults},
)
