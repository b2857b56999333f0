"""From a snapshot and a memory to a decision with its evidence: pure, and replayable."""
