"""Packages only: the four layers at the top level import as `paperflows.<layer>`. The rest is in pyproject.toml."""

from setuptools import find_packages, setup

LAYERS = ("flows", "tasks", "components", "kernels")

packages = ["paperflows"]
package_dir = {"paperflows": "paperflows"}
for layer in LAYERS:
    package_dir[f"paperflows.{layer}"] = layer
    packages += [f"paperflows.{layer}", *(f"paperflows.{layer}.{name}" for name in find_packages(layer))]

setup(packages=packages, package_dir=package_dir)
