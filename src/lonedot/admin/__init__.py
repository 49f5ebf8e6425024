"""What a person may ask of the relay, once: every skin (control socket, command line) calls the same operations."""
