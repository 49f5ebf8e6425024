"""The inbound shell: listeners, sessions, the Pickup folder, and what makes a message out of what they bring."""
