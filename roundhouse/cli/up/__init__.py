"""`roundhouse up`: a whole cluster on this machine, for as long as the command runs."""
