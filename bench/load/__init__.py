"""What puts load on a proxy. Each module runs as a process of its own and answers with one line of JSON."""
