"""What is measured: each module starts one proxy as an operator would, on the proxy's core."""
