"""A kind cluster for the end-to-end suite and the demo, on any Debian or Docker machine.

The package uses nothing but the standard library, because it runs before the
project's own dependencies are installed.
"""
