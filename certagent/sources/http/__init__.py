"""HTTP as the clients of stores need it: bounded in time and size, failures in plain words."""
