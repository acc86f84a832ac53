"""From the annotations of vault-agent's injector to a configuration and an overlay: all pure."""
