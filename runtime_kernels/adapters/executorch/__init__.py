"""ExecuTorch's adapter: the operator library and its registration with torch for export."""
