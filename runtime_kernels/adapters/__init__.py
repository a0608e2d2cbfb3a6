"""The kernels inside other runtimes: one folder per runtime, each a library of custom operators."""
