"""Makes the cluster what a decision says: server-side apply, status, Events."""
