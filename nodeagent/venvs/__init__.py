"""Python environments of deployments: built by uv, each once on a node, named by what went into it, never changed."""
