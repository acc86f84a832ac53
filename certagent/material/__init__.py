"""Keys, certificates and the rules about them: pure, without I/O and without a clock."""
