"""The sinks that come with the relay, one file each. None is bound unless the configuration says so."""
