"""Packages only: the four layers live at the top level but import as `paperflows.<layer>`; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

LAYERS = ("flows", "tasks", "components", "kernels")

packages = ["paperflows"]
package_dir = {"paperflows": "paperflows"}
for layer in LAYERS:
    package_dir[f"paperflows.{layer}"] = layer
    packages += [f"paperflows.{layer}", *(f"paperflows.{layer}.{name}" for name in find_packages(layer))]

setup(packages=packages, package_dir=package_dir)
