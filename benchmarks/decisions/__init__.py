"""Shows by simulation what Kedge's tests promise, beside the rules of other rollout tools.

`python -m benchmarks.decisions` runs everything, writes the figures to `docs/decisions/results.json` and draws
the page `docs/decisions/README.md` from them. Every number comes from one seed.
"""
