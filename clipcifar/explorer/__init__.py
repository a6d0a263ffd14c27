"""A local web page: prompts typed and judged at once, images filtered, confusions opened, a map."""
