"""Serves one scikit-learn model over the Open Inference Protocol, and measures what it serves.

A training script calls `package`; all else is for the `kedge-server` command.
"""

from typing import TYPE_CHECKING, Any

# The image carries the sources without the distribution's metadata, so this is written
# twice; a test compares it with pyproject.toml.
__version__ = "0.1.0"
__all__ = ["__version__", "package"]

if TYPE_CHECKING:
    from kedge_server.packing import package
else:

    def __getattr__(name: str) -> Any:
        """Imports `package` when it is asked for: it needs scikit-learn, which `kedge-server fetch` does not."""
        if name != "package":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from kedge_server.packing import package  # noqa: PLC0415

        return package
