"""What operators and Prometheus ask the proxy itself, on a listener that clients do not reach."""
