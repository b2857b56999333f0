"""From a snapshot and a memory to a decision with its evidence. Pure: no clock, no chance, no I/O."""
