"""The door: `clipcifar` and its commands.

Arguments and the current directory are known here alone; the work is done by the packages below.
"""
