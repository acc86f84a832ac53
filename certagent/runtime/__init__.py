"""What a process needs to live in a pod: time, signals, probes, metrics, logs."""
