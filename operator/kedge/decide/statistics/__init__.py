"""Tests that stay valid however often they are looked at.

Pure functions over numbers and frozen dataclasses: no clock, no randomness, no I/O. Every module cites
the paper it follows and states what its guarantee assumes. Log e-values are natural logarithms.
"""
