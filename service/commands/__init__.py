"""One module per command of the service: HELP, arguments, main."""
