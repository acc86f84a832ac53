"""What the operator asked for: from a file, the environment and flags to one frozen `Config`."""
