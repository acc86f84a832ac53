"""How the agent gets into Istio's pods, as plain data: for the command line and for charts."""
