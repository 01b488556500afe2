"""The live catalogue: what the shop sells, what of it is in stock, and each article's Fashion DNA under each bundle.

Redis holds it (``redis_store``); every worker's index follows it through a stream of changes (``follower``).
"""
