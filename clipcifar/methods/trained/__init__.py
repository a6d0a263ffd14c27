"""The two heads that torch trains, and what trains them."""
