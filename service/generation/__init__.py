"""The language model's side of the service: what it wrote for a customer, who lets it write, and how it is called."""
