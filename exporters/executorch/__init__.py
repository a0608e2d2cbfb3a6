"""The ExecuTorch target: XNNPACK for what it does well, bitvox's operator library for packed weights."""
