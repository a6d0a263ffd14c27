"""Published numbers beside ours: what was printed, what a run measured, how far apart chance may put them."""
