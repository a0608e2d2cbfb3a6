"""A full-size model whose weights stay in n bits in memory, beside the float and int8 of both runtimes."""
