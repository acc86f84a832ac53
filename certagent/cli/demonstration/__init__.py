"""What `certagent demo` shows, part by part; `certagent.cli.demo` puts it together."""
