"""A checkpoint, a voice and a budget in, packed weights out: load it, plan it, pack it."""
