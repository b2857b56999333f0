"""Kedge: rolls model versions out step by step and hauls the bad ones back."""
