"""The HTTP skin: routes, schemas and errors of the contract (design §7). It holds no logic of its own."""
