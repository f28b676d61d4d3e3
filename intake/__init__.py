"""How batches come in and are steered: manifests, batches, the HTTP API."""
