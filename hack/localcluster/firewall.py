"""Removal of the firewall rules that a Docker daemon leaves behind when it stops.

A daemon adds its chains and sets the policy of forwarding to DROP. Nothing takes that back,
and a machine without Docker should be as it was.
"""

from __future__ import annotations

import re

from hack.localcluster import progress

PROGRAMS = ("iptables", "ip6tables")
TABLES = ("filter", "nat")
PREFIX = "DOCKER"


def forward_policy() -> str:
    """The policy of forwarded packets, ACCEPT where it cannot be read."""
    found = re.match(r"-P FORWARD (\w+)", progress.output_of(["iptables", "-S", "FORWARD"]) or "")
    return found[1] if found else "ACCEPT"


def removal(rules: str) -> list[list[str]]:
    """The iptables arguments that remove Docker's chains, given what `iptables -S` printed.

    Rules of the built-in chains that lead there go first: a chain in use cannot be deleted.
    """
    lines = [line.split() for line in rules.splitlines()]
    jumps = [
        ["-D", *line[1:]]
        for line in lines
        if line[0] == "-A" and not line[1].startswith(PREFIX) and line[-1].startswith(PREFIX)
    ]
    chains = [line[1] for line in lines if line[0] == "-N" and line[1].startswith(PREFIX)]
    return [*jumps, *(["-F", chain] for chain in chains), *(["-X", chain] for chain in chains)]


def clear(policy: str) -> None:
    for program in PROGRAMS:
        for table in TABLES:
            rules = progress.output_of([program, "-t", table, "-S"]) or ""
            for words in removal(rules):
                progress.output_of([program, "-t", table, *words])
    progress.output_of(["iptables", "-P", "FORWARD", policy])
