"""HTTP/1.1: the site, its paths, and what a request's body and answer may look like."""
