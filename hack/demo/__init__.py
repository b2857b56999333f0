"""Plays Kedge's main job on a real cluster: a better model is promoted, and a bad one is taken back."""
