"""Any source of weights to one folder in open_clip's format, described.

All that asks a hub is here; `backbone` loads the folder and needs no network.
"""
