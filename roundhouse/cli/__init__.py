"""The command line: asks through the client, shows what comes back, and ends with a status that scripts can trust."""
