"""Who receives mail here: local domains, their recipients, aliases and distribution lists."""
