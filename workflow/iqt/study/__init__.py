"""A study of one's own: low-field scans in, enhanced ones out as a BIDS derivative, with a page to look at."""
