"""The files that stages hand on, a module each, checked on reading; imports `core` alone."""
