"""Which version of the distribution this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lethe")
except PackageNotFoundError:  # a checkout
    __version__ = "0+checkout"
