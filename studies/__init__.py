"""The scripts of the studies, beside the pipeline that runs them."""
