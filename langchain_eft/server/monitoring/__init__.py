"""What a server tells its operator: one log line a request, and metrics."""
