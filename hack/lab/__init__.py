"""Kedge installed on the cluster, with models to serve, users who send requests, and a record of it all.

The demo and the end-to-end tests stand on it, so that both see the same thing in the same way.
"""
