"""Training of registration networks: iterative, AltO and SSHNet."""
