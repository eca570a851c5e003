"""The egress sidecar: gives an agent's requests the credentials that the agent does not hold."""
