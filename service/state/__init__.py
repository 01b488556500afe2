"""What is known about customers: log of purchases and returns, session, and the cached state of the style LSTM."""
