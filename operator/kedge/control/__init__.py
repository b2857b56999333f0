"""Runs it all: watches, the keyed queue, leadership, probes, and the reconcile loop."""
