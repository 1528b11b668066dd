"""Networks, one architecture a file, built from a config."""
