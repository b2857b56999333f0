"""Measures the model server beside a bare loop, a minimal server and other model servers, in one run."""
