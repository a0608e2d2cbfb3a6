"""Each pass reads a model and refines one plan: measure, allocate, calibrate."""
