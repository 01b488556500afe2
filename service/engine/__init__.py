"""The pure part of the service: state, index and clock in, ranking out. Knows neither web nor Redis."""
