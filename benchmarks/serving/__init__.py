"""Measures the model server against a bare loop and a minimal server, in one run."""
