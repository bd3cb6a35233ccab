"""Review page: an expert checks an inventory in the browser. Needs the extra `review`."""
