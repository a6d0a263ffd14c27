"""Archives, folders and photographs: from what lies somewhere to labelled images.

The split into train and val is in `store.splits`, fitting pixels to a model in `backbone`.
"""
