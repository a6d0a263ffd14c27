"""The files that stages hand on, a module each, checked on reading; imports `core` alone.

How their content is made is told elsewhere; `container` is what all HDF5 files of ours are.
"""
