"""Serves one scikit-learn model over the Open Inference Protocol, and measures what it serves."""

from importlib import metadata as _metadata

try:
    __version__ = _metadata.version("kedge")
except _metadata.PackageNotFoundError:
    # The image carries the sources without the distribution's metadata.
    __version__ = "0.0.0"
