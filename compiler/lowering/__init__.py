"""Plan and weights in, packed int2..int8 buffers out."""
