"""Serves one scikit-learn model over the Open Inference Protocol, and measures what it serves."""
