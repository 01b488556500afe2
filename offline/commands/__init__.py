"""The commands of this room; the dispatcher imports each only when it is called."""
