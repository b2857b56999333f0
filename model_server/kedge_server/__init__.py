"""Serves one scikit-learn model over the Open Inference Protocol, and measures what it serves."""

# The image carries the sources without the distribution's metadata, so this is written
# twice; a test compares it with pyproject.toml.
__version__ = "0.1.0"
