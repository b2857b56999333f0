"""The few firewall rules that let pods reach the network through a daemon of our own.

That daemon is kept from the firewall: it would delete the chains of another daemon when it
starts, and leave its own and a closed forwarding policy when it stops. These rules name the
bridge that they serve, by which they are found and removed.
"""

from __future__ import annotations

from hack.localcluster import docker, progress

PROGRAM = "iptables"
Rule = tuple[str, list[str]]


def bridges(daemon: docker.Docker) -> dict[str, str]:
    """The bridges of the daemon's own networks, with their IPv4 subnets."""
    found: dict[str, str] = {}
    listing = ("network", "ls", "--quiet", "--no-trunc", "--filter", "type=custom")
    for identifier in daemon.lines(*listing):
        template = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
        subnets = daemon.lines("network", "inspect", "--format", template, identifier)
        found |= {f"br-{identifier[:12]}": subnet for subnet in subnets if ":" not in subnet}
    return found


def rules(bridge: str, subnet: str) -> list[Rule]:
    """Tables and rules: leave with the host's address, and pass both ways."""
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ("nat", ["POSTROUTING", "-s", subnet, "!", "-o", bridge, "-j", "MASQUERADE"]),
        ("filter", ["FORWARD", "-i", bridge, "-j", "ACCEPT"]),
        ("filter", ["FORWARD", "-o", bridge, *answers, "-j", "ACCEPT"]),
    ]


def open_for(daemon: docker.Docker) -> None:
    """Adds the rules that are not there yet."""
    for bridge, subnet in bridges(daemon).items():
        for table, rule in rules(bridge, subnet):
            if progress.output_of([PROGRAM, "-t", table, "-C", *rule]) is None:
                progress.output_of([PROGRAM, "-t", table, "-I", *rule])


def close_for(daemon: docker.Docker) -> None:
    """Removes the rules again, however often they were added."""
    for bridge, subnet in bridges(daemon).items():
        for table, rule in rules(bridge, subnet):
            while progress.output_of([PROGRAM, "-t", table, "-D", *rule]) is not None:
                pass
