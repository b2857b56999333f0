"""From what is declared to what should exist: revisions, plans and manifests. Pure."""
